"""Exact search for the most similar descriptors, in blocks, without the similarities to all the others."""

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
"""Rows that a CPU converts and multiplies at a time: 4 MB of 2048 dimensions stay in its caches."""

RECOMPUTED_PAIRS = 1024
"""Candidates whose similarity is computed once more at a time, which bounds the memory of it."""


def exact_search(
    queries: np.ndarray, database: Rows, count: int, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The database's first images by falling similarity to each query, ties in the database's order.

    A float32 matrix product excludes the images that cannot be among the first. Only the similarities of the
    remaining images are computed in float64 and rounded to float32, as `compute_similarities` does. The
    result is bitwise equal to a sort of all similarities, at the speed of the float32 product.

    Args:
        queries: (Q, D), of length 1 at most, as all descriptors are.
        database: (N, D), likewise.
        count: how many; all where there are fewer.
        device: where to multiply.

    Returns:
        Places, (Q, min(count, N)) int64, and similarities, likewise float32.

    Raises:
        UserError: a query or a row of the database has a nan or an infinity.
    """
    _check_finite(torch.from_numpy(queries.astype(np.float32)), "query")
    count = min(count, len(database))
    if count == 0 or len(queries) == 0:
        return np.empty((len(queries), count), np.int64), np.empty((len(queries), count), np.float32)
    wide = queries.astype(np.float64)
    left = torch.from_numpy(queries.astype(np.float32)).to(device)
    margin = np.float32(rounding_error_bound(queries.shape[1]))
    pool = _Pool(len(queries), count, margin)
    for block_places, similar in _block_similarities(left, database):
        _check_finite(similar.T, "row", block_places)
        if np.isinf(pool.bound).any() and len(block_places) >= count:
            # not yet so many found as wanted: the block's own say what is certainly not among the first
            least = similar.topk(count).values[:, -1].cpu().numpy()
            pool.bound = np.maximum(pool.bound, least - 2 * margin)
        may_be_first = (similar >= torch.from_numpy(pool.bound).to(device)[:, None]).cpu().numpy()
        candidates = np.flatnonzero(may_be_first)  # torch's own takes far longer
        if not len(candidates):
            continue
        query, column = np.divmod(candidates, len(block_places))
        found = similar.flatten()[torch.from_numpy(candidates).to(device)].cpu().numpy()
        pool.add(query, block_places[column], found)
        if len(pool.places) > pool.most:
            pool.drop_below_bounds()
        if len(pool.places) > pool.most:  # all but equal, and so told apart now
            pool.keep_first(wide, database)
    pool.drop_below_bounds()
    return pool.keep_first(wide, database)


def rounding_error_bound(width: int) -> float:
    """More than a float32 dot product of two vectors of length 1 can be wrong by, in whatever order it sums.

    D u / (1 - D u) with u = 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1),
    and half as much again, for vectors that float16 made longer than 1 and queries rounded to float32.
    """
    return 1.5 * (width + 8) / 2**24


def _check_finite(rows: Tensor, name: str, numbers: np.ndarray | None = None) -> None:
    """Raise a UserError that names the first of some rows, (n, m), with a value that is not finite."""
    finite = torch.isfinite(rows)
    if not finite.all():
        first = int(finite.all(dim=1).logical_not().nonzero()[0])
        number = first if numbers is None else numbers[first]
        raise UserError(f"{name} {number} has a nan or an infinity, and so no similarity to the others")


class _Pool:
    """The images that may be among the first of each query, with similarities wrong by `margin` at most.

    Args:
        queries: Q.
        count: how many images each query wants.
        margin: how wrong a similarity may be.
    """

    def __init__(self, queries: int, count: int, margin: np.float32) -> None:
        self.count = count
        self.margin = margin
        self.bound = np.full(queries, -np.inf, np.float32)
        """An image whose similarity is found to be less than this is not among its query's first."""
        self.most = 2 * queries * count + RECOMPUTED_PAIRS
        # Before anything is found, each query's are of no similarity at all.
        self.queries = np.repeat(np.arange(queries), count)
        self.places = np.full(len(self.queries), -1, np.int64)
        self.found = np.full(len(self.queries), -np.inf, np.float32)

    def add(self, queries: np.ndarray, places: np.ndarray, found: np.ndarray) -> None:
        """Takes in candidates: their queries' numbers, places in the database and similarities, all (n,)."""
        self.queries = np.concatenate([self.queries, queries])
        self.places = np.concatenate([self.places, places])
        self.found = np.concatenate([self.found, found])

    def keep(self, chosen: np.ndarray) -> None:
        """Keeps some candidates, by mask or number."""
        self.queries, self.places, self.found = self.queries[chosen], self.places[chosen], self.found[chosen]

    def drop_below_bounds(self) -> None:
        """Raises the bounds to what the candidates tell, and drops those that are below."""
        order = np.lexsort((-self.found, self.queries))
        first = np.searchsorted(self.queries[order], np.arange(len(self.bound)))
        least = self.found[order[first + self.count - 1]]
        # both the image of this rank and the one compared with it may be wrong by the margin
        self.bound = np.maximum(self.bound, least - 2 * self.margin)
        self.keep(self.found >= self.bound[self.queries])

    def keep_first(self, wide: np.ndarray, database: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Computes the candidates' similarities in float64 and keeps the first of each query, in order.

        Args:
            wide: (Q, D) float64 queries.
            database: (N, D).

        Returns:
            Places and similarities as `exact_search` does.
        """
        self.keep(self.places >= 0)
        for start in range(0, len(self.places), RECOMPUTED_PAIRS):
            part = slice(start, start + RECOMPUTED_PAIRS)
            rows = database[self.places[part]]
            self.found[part] = (wide[self.queries[part]] * rows).sum(axis=1)
        order = np.lexsort((self.places, -self.found, self.queries))
        first = np.searchsorted(self.queries[order], np.arange(len(self.bound)))
        self.keep(order[(first[:, None] + np.arange(self.count)).ravel()])
        shape = (len(self.bound), self.count)
        return self.places.reshape(shape), self.found.reshape(shape)


def _block_similarities(left: Tensor, database: Rows) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Places, (n,), of each block of a database and its float32 similarities to the queries, (Q, n)."""
    if left.device.type != "cpu":
        for places, rows in row_blocks(database):
            # as they are stored: a copy that converts would do so on the CPU
            yield places, left @ torch.from_numpy(rows).to(left.device).float().T
        return
    # Each thread multiplies blocks of its own: no core waits for the others, as it would at the end of every
    # product that they share, and the next blocks are read while the caller looks at this one.
    threads = torch.get_num_threads()
    own = threading.local()

    def begin() -> None:
        torch.set_num_threads(1)  # of this thread and those that begin from now on
        own.buffer = torch.empty(CACHED_ROWS, left.shape[1])  # fresh memory for each part costs as much again

    def multiply(rows: np.ndarray) -> Tensor:
        similar = torch.empty(len(left), len(rows))
        for part, found in zip(
            torch.from_numpy(rows).split(CACHED_ROWS), similar.split(CACHED_ROWS, dim=1), strict=True
        ):
            torch.mm(left, own.buffer[: len(part)].copy_(part).T, out=found)
        return similar

    running: deque[tuple[np.ndarray, Future[Tensor]]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=begin) as pool:
            for places, rows in row_blocks(database):
                running.append((places, pool.submit(multiply, rows)))
                if len(running) > 2 * threads:
                    places, similar = running.popleft()
                    yield places, similar.result()
            for places, similar in running:
                yield places, similar.result()
    finally:
        torch.set_num_threads(threads)
