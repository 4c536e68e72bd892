"""Search that compares queries with all rows of a database and sorts: for complete rankings.

`utils.search.exact` returns the first rows and the ranks of some rows without this memory and time.
"""

from collections.abc import Callable, Sequence

import numpy as np

from utils.descriptors.rows import Rows, row_blocks
from utils.search.exact import Found

QUERIES = 16
"""Queries compared with the database at a time; bounds the memory."""

Compare = Callable[[np.ndarray], np.ndarray]
"""A function from queries, (Q, D), to values to rank all rows by, (Q, N)."""


def search_by_sorting(
    compare: Compare, queries: np.ndarray, count: int, labelled: Sequence[np.ndarray]
) -> Found:
    """Return the results of a search that can only be had from the values of all rows.

    Args:
        compare: function that returns these values.
        queries: (Q, D).
        count: number of first rows per query; N if it is greater.
        labelled: per query, indices of the rows whose ranks are wanted.
    """
    indices, values, ranks = [], [], []
    for start in range(0, len(queries), QUERIES):
        block = slice(start, start + QUERIES)
        similarities = compare(queries[block])
        indices.append(first_indices(similarities, count))
        values.append(np.take_along_axis(similarities, indices[-1], axis=1))
        ranks += [
            ranks_of_indices(rows, row) for rows, row in zip(labelled[block], similarities, strict=True)
        ]
    return Found(np.concatenate(indices), np.concatenate(values), ranks)


def compute_similarities(queries: np.ndarray, database: Rows) -> np.ndarray:
    """Return the dot products of every query with every row of the database.

    The products are summed in float64 and rounded to float32, as in `utils.search.exact`. The two orders of
    summation in float64 round to different float32 numbers about once in 100 million products.

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


def ranks_of_indices(indices: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    """Return the ranks of images by falling similarity, ties in the database's order.

    Args:
        indices: (K,) indices in the database.
        similarities: (N,).

    Returns:
        (K,) int64, from 0.
    """
    values = similarities[indices]
    rising = np.sort(similarities)
    start, stop = (np.searchsorted(rising, values, side=side) for side in ("left", "right"))
    ranks = len(rising) - stop
    for tied in np.flatnonzero(stop - start > 1):  # ties are rare
        ranks[tied] += np.count_nonzero(similarities[: indices[tied]] == values[tied])
    return ranks
