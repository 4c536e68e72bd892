"""Exact nearest neighbours of each image within the database."""

import numpy as np

from utils.descriptors.rows import Rows
from utils.search.similarity import compute_similarities, first_indices

ROWS = 256
"""Images compared with the database at a time: their similarities to 100,000 images take 0.1 GB."""


def nearest_neighbours(database: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest neighbours of each image, without the image itself.

    All similarities are computed, in blocks. The time grows with the square of the database's size.

    Args:
        database: (N, D), N at least 1.
        k: number of neighbours per image, at least 0; N - 1 if it is greater.

    Returns:
        Indices in the database, (N, min(k, N - 1)) int64, by falling dot product, ties in the database's
        order, and the dot products, float32 of the same shape. An image that equals another one is its
        neighbour.
    """
    count = min(k, len(database) - 1)
    indices = np.empty((len(database), count), np.int64)
    similarities = np.empty((len(database), count), np.float32)
    for start in range(0, len(database), ROWS):
        block = slice(start, start + ROWS)
        to_all = compute_similarities(database[block], database)
        within = np.arange(len(to_all))
        to_all[within, start + within] = -np.inf  # ranks the image itself last
        indices[block] = first_indices(to_all, count)
        similarities[block] = np.take_along_axis(to_all, indices[block], axis=1)
    return indices, similarities
