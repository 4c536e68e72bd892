"""Rows that may be among the first of each query, while the blocks of a database are searched."""

import numpy as np
import torch
from torch import Tensor

from utils.descriptors.rows import Rows
from utils.search.block_products import pair_similarities

SPARE = 1024
"""Candidates kept beyond twice the number to return, before they are reduced."""


class Candidates:
    """Rows that may be among the first `count` of each query, with similarities that may be approximate.

    Args:
        queries: (Q, D).
        database: (N, D).
        count: number of rows to return per query, at most N.
        margin: largest error of an approximate similarity.
    """

    def __init__(self, queries: np.ndarray, database: Rows, count: int, margin: float) -> None:
        self._float64_queries = queries.astype(np.float64)
        self._database = database
        self._count = count
        self._margin = np.float32(margin)
        self._bounds = np.full(len(queries), -np.inf, np.float32)
        """Lowest approximate similarity per query that a row among the first can have."""
        self._capacity = 2 * len(queries) * count + SPARE
        # Each query starts with `count` placeholders of index -1 and similarity minus infinity.
        self._queries = np.repeat(np.arange(len(queries)), count)
        self._indices = np.full(len(self._queries), -1, np.int64)
        self._similarities = np.full(len(self._queries), -np.inf, np.float32)

    def add_block(self, block_indices: np.ndarray, similarities: Tensor) -> None:
        """Add the rows of a block that may be among the first.

        Args:
            block_indices: (n,) indices in the database.
            similarities: (Q, n) approximate similarities.
        """
        if self._count == 0:
            return
        if np.isinf(self._bounds).any() and len(block_indices) >= self._count:
            # Some queries have fewer than `count` candidates so far. Bound them by this block alone.
            least = similarities.topk(self._count).values[:, -1].cpu().numpy()
            self._bounds = np.maximum(self._bounds, least - 2 * self._margin)
        positions, values = _at_least(similarities, self._bounds)
        if not len(positions):
            return
        query, column = np.divmod(positions, len(block_indices))
        self._queries = np.concatenate([self._queries, query])
        self._indices = np.concatenate([self._indices, block_indices[column]])
        self._similarities = np.concatenate([self._similarities, values])
        if len(self._indices) > self._capacity:
            self._drop_below_bounds()
        if len(self._indices) > self._capacity:  # nearly equal similarities: only float64 decides
            self._keep_first()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return indices and similarities, both (Q, count), sorted, ties in the database's order.

        If there were fewer rows, the index of the last ones is -1, and their similarity minus infinity.
        """
        if self._count:
            self._drop_below_bounds()
            self._keep_first()
        shape = (len(self._bounds), self._count)
        return self._indices.reshape(shape), self._similarities.reshape(shape)

    def _keep(self, selection: np.ndarray) -> None:
        """Keep the candidates of a mask or of an array of positions."""
        self._queries = self._queries[selection]
        self._indices = self._indices[selection]
        self._similarities = self._similarities[selection]

    def _drop_below_bounds(self) -> None:
        """Raise the bounds according to the candidates, and drop the candidates below the bounds."""
        order = np.lexsort((-self._similarities, self._queries))
        first = np.searchsorted(self._queries[order], np.arange(len(self._bounds)))
        least = self._similarities[order[first + self._count - 1]]
        # Twice the margin, because both compared similarities may be wrong by the margin.
        self._bounds = np.maximum(self._bounds, least - 2 * self._margin)
        self._keep(self._similarities >= self._bounds[self._queries])

    def _keep_first(self) -> None:
        """Compute the exact similarities, and keep the first `count` candidates of each query, sorted."""
        rows = np.flatnonzero(self._indices >= 0)  # no placeholders
        self._similarities[rows] = pair_similarities(
            self._float64_queries, self._queries[rows], self._database, self._indices[rows]
        )
        order = np.lexsort((self._indices, -self._similarities, self._queries))
        first = np.searchsorted(self._queries[order], np.arange(len(self._bounds)))
        self._keep(order[(first[:, None] + np.arange(self._count)).ravel()])


def _at_least(similarities: Tensor, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the similarities, (Q, n), that reach the bound of their query, (Q,).

    Returns:
        Positions in the flattened similarities, (K,) int64, and their values, (K,) float32.
    """
    if similarities.device.type == "cpu":
        # NumPy uses one thread. The threads of torch would wait for the ones that multiply other blocks.
        values = similarities.numpy()
        positions = np.flatnonzero(values >= bounds[:, None])
        return positions, values.ravel()[positions]
    on_device = torch.from_numpy(bounds).to(similarities.device)
    positions = np.flatnonzero(
        (similarities >= on_device[:, None]).cpu().numpy()
    )  # faster than torch.nonzero
    selected = torch.from_numpy(positions).to(similarities.device)
    return positions, similarities.flatten()[selected].cpu().numpy()
