"""Ranks of the labelled rows of each query, counted while the blocks of a database are searched."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from utils.descriptors.rows import Rows
from utils.search.block_products import CACHED_ROWS, multiply, pair_similarities

FLOAT64_MARGIN = 2.0**-22
"""Difference of a similarity in float64 from another one in float32 that decides their order."""

LARGEST_SHARE = 1 / 32
"""Share of the pairs of a block to sum in float64 above which a product of the block is faster."""

SPACING = 4.0
"""More than the range of similarities, -1..1, to search the sorted similarities of all queries at once."""


class LabelledRows:
    """Rows whose ranks are counted, sorted by query and rising similarity.

    Args:
        queries: (Q, D).
        database: (N, D).
        labelled: per query, indices in the database.
        margin: largest error of a similarity in a float32 product.
    """

    def __init__(
        self, queries: np.ndarray, database: Rows, labelled: Sequence[np.ndarray], margin: float
    ) -> None:
        self._float64_queries = queries.astype(np.float64)
        self._margin = margin
        self._lengths = [len(indices) for indices in labelled]
        of_queries = np.repeat(np.arange(len(labelled)), self._lengths)
        indices = np.concatenate([np.empty(0, np.int64), *labelled])
        similarities = pair_similarities(self._float64_queries, of_queries, database, indices)
        self._order = np.lexsort((similarities, of_queries))
        self._queries = of_queries[self._order]
        self._indices = indices[self._order]
        self._similarities = similarities[self._order]
        self.ranks = np.zeros(len(self._order), np.int64)
        """The number of rows before each labelled row in the blocks so far."""

    def ranks_by_query(self) -> list[np.ndarray]:
        """Return the ranks per query, in the order of its labelled rows."""
        ranks = np.empty_like(self.ranks)
        ranks[self._order] = self.ranks
        return np.split(ranks, np.cumsum(self._lengths)[:-1]) if self._lengths else []

    def count_before(self, block_indices: np.ndarray, rows: np.ndarray, products: Tensor) -> np.ndarray:
        """Return how many rows of a block come before each labelled row, (K,) for K labelled rows in all.

        Args:
            block_indices: (n,) indices in the database.
            rows: (n, D), as stored.
            products: (Q, n) similarities, each wrong by the margin at most.
        """
        if not len(self._indices):
            return self.ranks[:0]
        similarities = products.cpu().numpy()
        start, stop = self._open_range(similarities, self._margin)
        if (stop - start).sum() > LARGEST_SHARE * similarities.size:
            buffer = torch.empty(CACHED_ROWS, rows.shape[1], dtype=torch.float64)
            exact_products = torch.empty(similarities.shape, dtype=torch.float64)
            multiply(torch.from_numpy(self._float64_queries), rows, buffer, exact_products)
            similarities = exact_products.numpy()
            start, stop = self._open_range(similarities, FLOAT64_MARGIN)
        before = len(rows) * (self._queries + 1) - stop
        is_open = stop - start > np.isin(self._indices, block_indices)  # a row does not come before itself
        if is_open.any():
            open_rows = np.flatnonzero(is_open)
            before += self._count_open(block_indices, rows, similarities, start, stop, open_rows)
        return before

    def _open_range(self, similarities: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the range of rows that only exact similarities can compare with each labelled row.

        Args:
            similarities: (Q, n).
            margin: difference of two similarities that decides their order.

        Returns:
            Start and stop, both (K,), in the flattened array of the rising similarities of each query.
        """
        rising = np.sort(similarities, axis=1) + SPACING * np.arange(len(similarities))[:, None]
        values = self._similarities + SPACING * self._queries
        start = np.searchsorted(rising.ravel(), values - margin, side="left")
        return start, np.searchsorted(rising.ravel(), values + margin, side="right")

    def _count_open(
        self,
        block_indices: np.ndarray,
        rows: np.ndarray,
        similarities: np.ndarray,
        start: np.ndarray,
        stop: np.ndarray,
        open_rows: np.ndarray,
    ) -> np.ndarray:
        """Return how many rows in the ranges of some labelled rows come before them, by exact similarity."""
        count, lengths = len(rows), (stop - start)[open_rows]
        labelled = np.repeat(open_rows, lengths)
        query = self._queries[labelled]
        ends = np.cumsum(lengths)
        position = np.arange(len(labelled)) + np.repeat(stop[open_rows] - ends, lengths) - count * query
        queries, row_of_query = np.unique(query, return_inverse=True)
        column = np.argsort(similarities[queries], axis=1)[row_of_query, position]
        pairs, inverse = np.unique(count * query + column, return_inverse=True)
        exact = pair_similarities(self._float64_queries, pairs // count, rows, pairs % count)[inverse]
        expected = self._similarities[labelled]
        is_earlier = block_indices[column] < self._indices[labelled]
        comes_before = (exact > expected) | ((exact == expected) & is_earlier)
        return np.bincount(labelled[comes_before], minlength=len(start))
