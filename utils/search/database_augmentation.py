"""Database augmentation: each image's descriptor is joined by those of its neighbours, before any search.

Turcot and Lowe, "Better matching with fewer features: the selection of useful features in large database
recognition problems", ICCV workshops 2009, add to an image's visual words those of the images that match it.
Gordo et al., "End-to-end learning of deep visual representations for image retrieval", IJCV 2017, take the
weighted sum of global descriptors, with weights that fall with the neighbour's rank.
"""

import numpy as np

from utils.descriptors.rows import Rows
from utils.search.neighbours import nearest_neighbours

ROWS = 256
"""Images augmented at a time, which bounds the memory of their neighbours' descriptors."""


def augment_database(database: Rows, k: int) -> np.ndarray:
    """Weighted mean of each image's descriptor and those of its k nearest neighbours.

    The image itself counts 1, its neighbour of rank r = 1..k counts (k + 1 - r) / (k + 1). That they
    would be 0 only for one neighbour more, so that all k count, is a choice made here. What is added are the
    neighbours' descriptors as they were before.

    Args:
        database: (N, D), N at least 1; only its shape, slices of its rows, and rows by (R, K) places are
            asked for.
        k: neighbours that are added to each image, at least 0. Where there are fewer, those there are count
            as they would among k.

    Returns:
        (N, D) float32, each of Euclidean length 1, or 0 where all that it is the mean of is 0.
    """
    places, _ = nearest_neighbours(database, k)
    weights = 1 - np.arange(1, places.shape[1] + 1) / (k + 1)
    augmented = np.empty(database.shape, np.float32)
    for start in range(0, len(database), ROWS):
        block = slice(start, start + ROWS)
        total = database[block] + np.einsum("k,rkd->rd", weights, database[places[block]])
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        augmented[block] = total / np.where(lengths > 0, lengths, 1)
    return augmented
