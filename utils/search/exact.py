"""Exact search for the most similar descriptors, in blocks that bound the memory."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from utils.descriptors.rows import Rows, row_blocks
from utils.errors import UserError

CACHED_ROWS = 512
"""Rows per matrix product on a CPU: 4 MB at 2048 dimensions, which fits the caches."""

RECOMPUTED_PAIRS = 1024
"""Pairs of query and image whose similarity is recomputed at a time; bounds the memory."""


def exact_search(
    queries: np.ndarray, database: Rows, count: int, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most similar images of each query, ties in the database's order.

    A float32 matrix product excludes the images that cannot be among the first. Only the similarities of the
    remaining images are computed in float64 and rounded to float32, as `compute_similarities` does. The
    result is bitwise equal to a sort of all similarities, at the speed of the float32 product.

    Args:
        queries: (Q, D), of length at most 1.
        database: (N, D), of length at most 1.
        count: number of images per query; N if it is greater.
        device: device of the matrix product.

    Returns:
        Indices in the database, (Q, min(count, N)) int64, by falling similarity, and the similarities,
        float32 of the same shape.

    Raises:
        UserError: a query or a row of the database contains NaN or infinity.
    """
    _check_finite(torch.from_numpy(queries.astype(np.float32)), "query")
    count = min(count, len(database))
    if count == 0 or len(queries) == 0:
        return np.empty((len(queries), count), np.int64), np.empty((len(queries), count), np.float32)
    queries_float64 = queries.astype(np.float64)
    queries_float32 = torch.from_numpy(queries.astype(np.float32)).to(device)
    margin = np.float32(rounding_error_bound(queries.shape[1]))
    candidates = _Candidates(len(queries), count, margin)
    for block_indices, similarities in _block_similarities(queries_float32, database):
        _check_finite(similarities.T, "row", block_indices)
        if np.isinf(candidates.bounds).any() and len(block_indices) >= count:
            # Some queries have fewer than `count` candidates so far. Bound them by this block alone.
            least = similarities.topk(count).values[:, -1].cpu().numpy()
            candidates.bounds = np.maximum(candidates.bounds, least - 2 * margin)
        may_be_first = (similarities >= torch.from_numpy(candidates.bounds).to(device)[:, None]).cpu().numpy()
        positions = np.flatnonzero(may_be_first)  # much faster than torch.nonzero
        if not len(positions):
            continue
        query, column = np.divmod(positions, len(block_indices))
        values = similarities.flatten()[torch.from_numpy(positions).to(device)].cpu().numpy()
        candidates.add(query, block_indices[column], values)
        if len(candidates.indices) > candidates.capacity:
            candidates.drop_below_bounds()
        if len(candidates.indices) > candidates.capacity:  # nearly equal similarities: only float64 decides
            candidates.keep_first(queries_float64, database)
    candidates.drop_below_bounds()
    return candidates.keep_first(queries_float64, database)


def rounding_error_bound(width: int) -> float:
    """Return an error bound of a float32 dot product of two vectors of length 1, for any summation order.

    The bound is 1.5 D u / (1 - D u) with u = 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms",
    section 3.1). The factor 1.5 allows for vectors that float16 made longer than 1 and for queries rounded to
    float32.

    Args:
        width: D, the number of dimensions.
    """
    return 1.5 * (width + 8) / 2**24


def _check_finite(rows: Tensor, name: str, indices: np.ndarray | None = None) -> None:
    """Raise a UserError that names the first row, of (n, m), with a value that is not finite."""
    finite = torch.isfinite(rows)
    if not finite.all():
        first = int(finite.all(dim=1).logical_not().nonzero()[0])
        index = first if indices is None else indices[first]
        raise UserError(f"{name} {index} contains NaN or infinity, so its similarities are undefined")


class _Candidates:
    """Images that may be among the first `count` of each query, with approximate similarities.

    Args:
        queries: Q, the number of queries.
        count: number of images to return per query.
        margin: largest error of an approximate similarity.
    """

    def __init__(self, queries: int, count: int, margin: np.float32) -> None:
        self.count = count
        self.margin = margin
        self.bounds = np.full(queries, -np.inf, np.float32)
        """Lowest approximate similarity per query that an image among the first can have."""
        self.capacity = 2 * queries * count + RECOMPUTED_PAIRS
        # Each query starts with `count` placeholders of index -1 and similarity minus infinity.
        self.queries = np.repeat(np.arange(queries), count)
        self.indices = np.full(len(self.queries), -1, np.int64)
        self.similarities = np.full(len(self.queries), -np.inf, np.float32)

    def add(self, queries: np.ndarray, indices: np.ndarray, similarities: np.ndarray) -> None:
        """Add candidates by the indices of their queries and images and their similarities, all (n,)."""
        self.queries = np.concatenate([self.queries, queries])
        self.indices = np.concatenate([self.indices, indices])
        self.similarities = np.concatenate([self.similarities, similarities])

    def keep(self, selection: np.ndarray) -> None:
        """Keep the candidates of a mask or of an array of positions."""
        self.queries = self.queries[selection]
        self.indices = self.indices[selection]
        self.similarities = self.similarities[selection]

    def drop_below_bounds(self) -> None:
        """Raise the bounds according to the candidates, and drop the candidates below the bounds."""
        order = np.lexsort((-self.similarities, self.queries))
        first = np.searchsorted(self.queries[order], np.arange(len(self.bounds)))
        least = self.similarities[order[first + self.count - 1]]
        # Twice the margin, because both compared similarities may be wrong by the margin.
        self.bounds = np.maximum(self.bounds, least - 2 * self.margin)
        self.keep(self.similarities >= self.bounds[self.queries])

    def keep_first(self, queries_float64: np.ndarray, database: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Compute the similarities in float64, and keep the first candidates of each query, sorted.

        Args:
            queries_float64: (Q, D) float64.
            database: (N, D).

        Returns:
            Indices and similarities as returned by `exact_search`.
        """
        self.keep(self.indices >= 0)
        for start in range(0, len(self.indices), RECOMPUTED_PAIRS):
            part = slice(start, start + RECOMPUTED_PAIRS)
            rows = database[self.indices[part]]
            self.similarities[part] = (queries_float64[self.queries[part]] * rows).sum(axis=1)
        order = np.lexsort((self.indices, -self.similarities, self.queries))
        first = np.searchsorted(self.queries[order], np.arange(len(self.bounds)))
        self.keep(order[(first[:, None] + np.arange(self.count)).ravel()])
        shape = (len(self.bounds), self.count)
        return self.indices.reshape(shape), self.similarities.reshape(shape)


def _block_similarities(queries: Tensor, database: Rows) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield the indices, (n,), of each block of the database and its float32 similarities, (Q, n)."""
    if queries.device.type != "cpu":
        for indices, rows in row_blocks(database):
            # Transfer the rows in their stored type, and convert them on the device.
            yield indices, queries @ torch.from_numpy(rows).to(queries.device).float().T
        return
    # Each thread multiplies separate blocks. Threads that share a product would wait for each other at its
    # end. The next blocks are read while the caller processes the current one.
    threads = torch.get_num_threads()
    local = threading.local()

    def start_thread() -> None:
        torch.set_num_threads(1)  # applies to this thread and to threads started from now on
        # Reuse one buffer: allocating memory for each part would cost as much as the copy.
        local.buffer = torch.empty(CACHED_ROWS, queries.shape[1])

    def multiply(rows: np.ndarray) -> Tensor:
        similarities = torch.empty(len(queries), len(rows))
        for part, output in zip(
            torch.from_numpy(rows).split(CACHED_ROWS), similarities.split(CACHED_ROWS, dim=1), strict=True
        ):
            torch.mm(queries, local.buffer[: len(part)].copy_(part).T, out=output)
        return similarities

    running: deque[tuple[np.ndarray, Future[Tensor]]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=start_thread) as pool:
            for indices, rows in row_blocks(database):
                running.append((indices, pool.submit(multiply, rows)))
                if len(running) > 2 * threads:
                    indices, similarities = running.popleft()
                    yield indices, similarities.result()
            for indices, similarities in running:
                yield indices, similarities.result()
    finally:
        torch.set_num_threads(threads)
