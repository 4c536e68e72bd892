"""Database augmentation: add the descriptors of its neighbours to the descriptor of each image.

Turcot and Lowe, "Better matching with fewer features: the selection of useful features in large database
recognition problems", ICCV workshops 2009, add the visual words of matching images to the visual words of an
image. Gordo et al., "End-to-end learning of deep visual representations for image retrieval", IJCV 2017, use
the sum of global descriptors, with weights that fall with the rank of the neighbour.
"""

import numpy as np

from utils.descriptors.rows import Rows
from utils.processes import ALONE, Processes
from utils.search.neighbours import Neighbours, nearest_neighbours

ROWS = 256
"""Images augmented at a time; bounds the memory of their neighbours' descriptors."""


def augment_database(
    database: Rows, k: int, neighbours: Neighbours = nearest_neighbours, processes: Processes = ALONE
) -> np.ndarray:
    """Return the weighted mean of each image's descriptor and the descriptors of its k nearest neighbours.

    The weight of the image itself is 1. The weight of its neighbour of rank r = 1..k is 1 - r / (k + 1).
    Divide by k + 1, not k, so that the k-th neighbour keeps some weight. All means are of the original
    descriptors, not of augmented ones.

    Args:
        database: (N, D), N at least 1, of length at most 1. It must support `shape`, slices of rows, and
            (R, K) arrays of indices.
        k: number of neighbours per image, at least 0. With fewer images, the weights stay the same.
        neighbours: search for the neighbours.
        processes: processes that share the means. All get the same result.

    Returns:
        (N, D) float32, each row of Euclidean length 1, or 0 if the mean is 0.
    """
    indices, _ = neighbours(database, k)
    weights = 1 - np.arange(1, indices.shape[1] + 1) / (k + 1)
    augmented = np.zeros(database.shape, np.float32)
    for start in processes.share(range(0, len(database), ROWS)):
        block = slice(start, start + ROWS)
        total = database[block] + np.einsum("k,rkd->rd", weights, database[indices[block]])
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        augmented[block] = total / np.where(lengths > 0, lengths, 1)
    return processes.add_up_array(augmented)
