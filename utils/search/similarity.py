"""Exhaustive search: the database in the order of falling similarity to each query."""

import numpy as np

from utils.descriptors.rows import Rows, row_blocks


def compute_similarities(queries: np.ndarray, database: Rows) -> np.ndarray:
    """Dot products of every query with every row of the database.

    Args:
        queries: (Q, D).
        database: (N, D).

    Returns:
        (Q, N) float32. Equal rows have equal similarities, so that ties are ties: a float32 matrix product
        sums in an order that depends on a row's place, a float64 one rounded to float32 hides that.
    """
    result = np.empty((len(queries), len(database)), np.float32)
    wide = queries.astype(np.float64)
    for places, rows in row_blocks(database):
        result[:, places] = wide @ rows.astype(np.float64).T
    return result


def rank(similar: np.ndarray) -> np.ndarray:
    """Places in the database by falling similarity, ties in the database's order.

    Args:
        similar: (Q, N) similarities.

    Returns:
        (Q, N) int64.
    """
    return np.argsort(-similar, axis=1, kind="stable")


def first_indices(similar: np.ndarray, count: int) -> np.ndarray:
    """The first `count` columns of `rank`, without sorting the others.

    Args:
        similar: (Q, N) similarities.
        count: how many; all where there are fewer.

    Returns:
        (Q, min(count, N)) int64.
    """
    count = min(count, similar.shape[1])
    least = -np.partition(-similar, count - 1, axis=1)[:, count - 1]
    first = np.empty((len(similar), count), np.int64)
    for row, bound, places in zip(similar, least, first, strict=True):
        candidates = np.flatnonzero(row >= bound)
        places[:] = candidates[np.argsort(-row[candidates], kind="stable")[:count]]
    return first
