"""Nearest neighbours of each image within the database, exact or by an index of FAISS."""

from collections.abc import Callable

import numpy as np

from utils.descriptors.rows import Rows
from utils.processes import ALONE, Processes
from utils.search.approximate import build_index
from utils.search.block_products import pair_similarities
from utils.search.exact import top_rows

Neighbours = Callable[[Rows, int], tuple[np.ndarray, np.ndarray]]
"""A function of a database and k with the result of `nearest_neighbours`."""

ROWS = 2048
"""Images compared with the database at a time; their similarities to a block of the database take 32 MB."""

PROBED_LISTS = 32
"""Inverted lists of the index that are searched per image."""

CANDIDATES = 3
"""Rows that the index returns per neighbour; their similarities are computed exactly."""


def nearest_neighbours(database: Rows, k: int, processes: Processes = ALONE) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest neighbours of each image, without the image itself.

    The time grows with the square of the database's size.

    Args:
        database: (N, D), N at least 1, of length at most 1.
        k: number of neighbours per image, at least 0; N - 1 if it is greater.
        processes: processes that share the images. All get the same result.

    Returns:
        Indices in the database, (N, min(k, N - 1)) int64, by falling dot product, ties in the database's
        order, and the dot products, float32 of the same shape. An image that equals another one is its
        neighbour.
    """
    count = min(k, len(database) - 1)
    indices = np.zeros((len(database), count), np.int64)
    similarities = np.zeros((len(database), count), np.float32)
    for start in processes.share(range(0, len(database), ROWS)):
        block = slice(start, start + ROWS)
        indices[block], similarities[block] = without_itself(
            start, *top_rows(database[block], database, count + 1)
        )
    return processes.add_up_array(indices), processes.add_up_array(similarities)


def approximate_neighbours(
    database: Rows, k: int, processes: Processes = ALONE, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours of each image as `nearest_neighbours` does, but leave some out, by an index of FAISS.

    The index has the codes of `faiss-ivfpq`. The similarities that are returned are exact.

    Args:
        database: (N, D), N at least 256, of length at most 1.
        k: number of neighbours per image, at least 0; N - 1 if it is greater.
        processes: processes that get the result; the first one computes it.
        seed: random seed for the training vectors of the index.

    Raises:
        UserError: FAISS is not installed, or the database is too small.
    """
    count = min(k, len(database) - 1)
    indices = np.zeros((len(database), count), np.int64)
    similarities = np.zeros((len(database), count), np.float32)
    if processes.leads:  # an index of each process could differ in the last bits
        index = build_index("faiss-ivfpq", database, seed)
        index.nprobe = min(PROBED_LISTS, index.nlist)
        for start in range(0, len(database), ROWS):
            block = slice(start, start + ROWS)
            rows = np.ascontiguousarray(database[block], np.float32)
            _, candidates = index.search(rows, min(CANDIDATES * (count + 1), len(database)))
            first = _first_candidates(rows, database, candidates, count + 1)
            indices[block], similarities[block] = without_itself(start, *first)
    return processes.add_up_array(indices), processes.add_up_array(similarities)


def _first_candidates(
    rows: np.ndarray, database: Rows, candidates: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most similar of the candidates of some rows, as `top_rows` does of all rows.

    Args:
        rows: (n, D).
        database: (N, D).
        candidates: (n, m) indices in the database; -1 for none.
        count: number of candidates to return; rows with fewer candidates are searched exactly.
    """
    of_rows = np.repeat(np.arange(len(rows)), candidates.shape[1])
    pairs = pair_similarities(rows.astype(np.float64), of_rows, database, candidates.ravel())
    similarities = np.where(candidates < 0, np.float32(-np.inf), pairs.reshape(candidates.shape))
    order = np.lexsort((candidates, -similarities))[:, :count]
    indices, values = (np.take_along_axis(array, order, axis=1) for array in (candidates, similarities))
    few = np.flatnonzero(np.isinf(values).any(axis=1))
    if len(few):
        indices[few], values[few] = top_rows(rows[few], database, count)
    return indices, values


def without_itself(
    start: int, indices: np.ndarray, similarities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first k of k + 1 rows that are not the image itself, of images from `start` on.

    Args:
        start: index of the first image.
        indices: (n, k + 1) rows by falling similarity.
        similarities: (n, k + 1).

    Returns:
        Both arrays without one column: the image itself, or the last one if the image is not among them.
    """
    images = np.arange(start, start + len(indices))
    is_other = indices != images[:, None]
    is_other[is_other.all(axis=1), -1] = False
    shape = (len(indices), indices.shape[1] - 1)
    return indices[is_other].reshape(shape), similarities[is_other].reshape(shape)
