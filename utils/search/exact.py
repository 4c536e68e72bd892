"""Exact search in blocks: the first rows of each query and the ranks of given rows, in bounded memory.

The similarity of a query and a row is their dot product, summed in float64 and rounded to float32, so that
equal rows have equal similarities and rank in the database's order. The order of summation in a float32
matrix product depends on the index of the row. The product of all rows in float64 would take twice as long.

Instead, a float32 product of each block gives all similarities up to `rounding_error_bound`. It decides most
comparisons of a similarity with a bound or with the similarity of another row. Only the remaining pairs of a
query and a row are summed in float64. Results are those of a sort of all similarities.

Processes of torchrun share the shards of a database: each one searches its shards, then all processes get the
merged first rows and the summed counts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.descriptors.rows import Rows
from utils.errors import UserError
from utils.processes import ALONE, Processes
from utils.search.block_products import SLICE, block_products
from utils.search.candidates import Candidates
from utils.search.labelled_rows import LabelledRows


class Found(NamedTuple):
    """The results of a search."""

    indices: np.ndarray
    """(Q, K) int64, the first rows of each query by falling similarity, ties in the database's order."""
    similarities: np.ndarray
    """(Q, K) float32."""
    ranks: list[np.ndarray]
    """Per query, the ranks of its labelled rows, int64, from 0."""


def top_rows(
    queries: np.ndarray,
    database: Rows,
    count: int,
    device: torch.device | str = "cpu",
    processes: Processes = ALONE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most similar rows of each query: indices and similarities as in `Found`.

    Args:
        queries: (Q, D).
        database: (N, D).
        count: number of rows per query.
        device: device of the matrix product.
        processes: processes that share the search.

    Raises:
        UserError: a query or a row of the database contains NaN or infinity.
    """
    unlabelled = [np.empty(0, np.int64)] * len(queries)
    return search_rows(queries, database, count, unlabelled, device, processes)[:2]


def search_rows(
    queries: np.ndarray,
    database: Rows,
    count: int,
    labelled: Sequence[np.ndarray],
    device: torch.device | str = "cpu",
    processes: Processes = ALONE,
) -> Found:
    """Return the first rows of each query and the ranks of its labelled rows, by one pass over the database.

    The rank of a row is the number of rows that come before it: more similar rows, and equally similar rows
    with a lower index.

    Args:
        queries: (Q, D), of length at most 1.
        database: (N, D), of length at most 1.
        count: number of first rows per query; N if it is greater.
        labelled: per query, indices of the rows whose ranks are counted.
        device: device of the matrix product.
        processes: processes that share the search, all of which must call this function with equal arguments
            and get the same results.

    Raises:
        UserError: a query or a row of the database contains NaN or infinity.
    """
    as_float32 = torch.from_numpy(queries.astype(np.float32))
    _check_finite(as_float32, "query")
    margin = rounding_error_bound(queries.shape[1])
    first = Candidates(queries, database, min(count, len(database)), margin)
    rows_to_rank = LabelledRows(queries, database, labelled, margin)

    def examine(indices: np.ndarray, rows: np.ndarray, similarities: Tensor) -> np.ndarray:
        _check_finite(similarities.T, "row", indices)
        return rows_to_rank.count_before(indices, rows, similarities)

    for indices, similarities, before in block_products(as_float32.to(device), database, examine, processes):
        rows_to_rank.ranks += before
        first.add_block(indices, similarities)
    rows_to_rank.ranks = processes.add_up_array(rows_to_rank.ranks)
    return Found(*_merge(*first.result(), processes), rows_to_rank.ranks_by_query())


def _merge(
    indices: np.ndarray, similarities: np.ndarray, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first K rows of each query among the first K rows of all processes, both (Q, K)."""
    parts = processes.gather([(indices, similarities)])
    if len(parts) == 1:
        return indices, similarities
    count = indices.shape[1]
    indices, similarities = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    order = np.lexsort((indices, -similarities))[:, :count]
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(similarities, order, axis=1)


def rounding_error_bound(width: int) -> float:
    """Return an error bound of a product of `multiply_slices` in float32, of two vectors of length 1.

    The bound is 1.01 n u / (1 - n u) with u = 2^-24 (Higham, "Accuracy and Stability of Numerical
    Algorithms", sections 3.1 and 4.2), for any summation order within a slice. Each term takes part in
    n = B + D / B + 8 roundings at most, with B dimensions per slice: the products and sums within its slice,
    and the sums of slices. The eight more operations and the factor 1.01 allow for vectors that rounding to
    float16 made longer than 1, by a factor of 1.0005 at most, and for queries rounded to float32.

    Args:
        width: D, the number of dimensions.
    """
    roundings = min(width, SLICE) + -(-width // SLICE) + 8
    return 1.01 * roundings / 2**24


def _check_finite(rows: Tensor, name: str, indices: np.ndarray | None = None) -> None:
    """Raise a UserError that names the first row, of (n, m), with a value that is not finite."""
    if not torch.isfinite(rows.sum()):  # much faster than a check of each value
        first = int(torch.isfinite(rows).all(dim=1).logical_not().nonzero()[0])
        index = first if indices is None else indices[first]
        raise UserError(f"{name} {index} contains NaN or infinity, so its similarities are undefined")
