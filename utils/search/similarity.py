"""Exhaustive search: similarities of queries to all rows of a database, and rankings by them."""

import numpy as np

from utils.descriptors.rows import Rows, row_blocks


def compute_similarities(queries: np.ndarray, database: Rows) -> np.ndarray:
    """Return the dot products of every query with every row of the database.

    The products are summed in float64 and rounded to float32, so that equal rows have equal similarities. The
    order of summation in a float32 matrix product depends on the index of the row.

    Args:
        queries: (Q, D).
        database: (N, D).

    Returns:
        (Q, N) float32.
    """
    result = np.empty((len(queries), len(database)), np.float32)
    queries = queries.astype(np.float64)
    for indices, rows in row_blocks(database):
        result[:, indices] = queries @ rows.astype(np.float64).T
    return result


def rank(similarities: np.ndarray) -> np.ndarray:
    """Return the indices of all images by falling similarity, ties in the database's order.

    Args:
        similarities: (Q, N).

    Returns:
        (Q, N) int64.
    """
    return np.argsort(-similarities, axis=1, kind="stable")


def first_indices(similarities: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` columns of `rank` without a full sort.

    Args:
        similarities: (Q, N).
        count: number of indices per query; N if it is greater.

    Returns:
        (Q, min(count, N)) int64.
    """
    count = min(count, similarities.shape[1])
    least = -np.partition(-similarities, count - 1, axis=1)[:, count - 1]
    first = np.empty((len(similarities), count), np.int64)
    for row, bound, indices in zip(similarities, least, first, strict=True):
        candidates = np.flatnonzero(row >= bound)
        indices[:] = candidates[np.argsort(-row[candidates], kind="stable")[:count]]
    return first
