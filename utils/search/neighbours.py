"""Nearest neighbours within the database: for each image the others that are most similar to it, exactly."""

import numpy as np

from utils.descriptors.rows import Rows
from utils.search.similarity import compute_similarities, first_indices

ROWS = 256
"""Images whose similarities to the whole database are held at a time: 0.1 GB of them for 100,000 images."""


def nearest_neighbours(database: Rows, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images, other than itself, of each image's ranking of the database.

    All similarities are computed, so the time grows with the square of the database; the memory does not.

    Args:
        database: (N, D), N at least 1; only its length and slices of its rows are asked for.
        k: neighbours of each, at least 0; all others where there are fewer.

    Returns:
        Their places in the database, (N, min(k, N - 1)) int64, by falling dot product, ties in the database's
        order, and these dot products, float32 of the same shape. An image is never its own neighbour; one
        that equals it is a neighbour like any other.
    """
    count = min(k, len(database) - 1)
    places = np.empty((len(database), count), np.int64)
    similar = np.empty((len(database), count), np.float32)
    for start in range(0, len(database), ROWS):
        block = slice(start, start + ROWS)
        to_all = compute_similarities(database[block], database)
        within = np.arange(len(to_all))
        to_all[within, start + within] = -np.inf  # behind all others, so that it is none of the first N - 1
        places[block] = first_indices(to_all, count)
        similar[block] = np.take_along_axis(to_all, places[block], axis=1)
    return places, similar
