"""Float32 matrix products of queries with the blocks of a database, computed by threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.descriptors.rows import BLOCK, Rows, row_blocks
from utils.processes import Processes

CACHED_ROWS = 1024
"""Rows per matrix product on a CPU: 8 MB at 2048 dimensions, which stays in the caches."""

SLICE = 256
"""Dimensions that are summed in one matrix product."""

PAIRS = 256
"""Pairs whose similarity is summed in float64 at a time; bounds the memory."""

Result = TypeVar("Result")

Examine = Callable[[np.ndarray, np.ndarray, Tensor], Result]
"""A function of the indices, (n,), and rows, (n, D), of a block and its similarities, (Q, n)."""


def block_products(
    queries: Tensor, database: Rows, examine: Examine[Result], processes: Processes
) -> Iterator[tuple[np.ndarray, Tensor, Result]]:
    """Yield the products of queries with each block of a database that is in the share of this process.

    Args:
        queries: (Q, D) float32; the products are computed on their device.
        database: (N, D).
        examine: function to call on each block. On a CPU, several threads call it at the same time.
        processes: processes that share the blocks.

    Yields:
        Indices, (n,) int64, of each block in the database, its similarities, (Q, n) float32, and the result
        of `examine`. The next block overwrites the similarities.
    """
    blocks = row_blocks(database, processes.index, processes.count)
    if queries.device.type != "cpu":
        for indices, rows in blocks:
            # Transfer the rows in their stored type, and convert them on the device.
            similarities = torch.empty(len(queries), len(rows), device=queries.device)
            multiply_slices(queries, torch.from_numpy(rows).to(queries.device).float(), similarities)
            yield indices, similarities, examine(indices, rows, similarities)
        return
    # Each thread multiplies separate blocks. Threads that share a product would wait for each other at its
    # end. The next blocks are read while the caller processes the current one.
    threads = torch.get_num_threads()
    local = threading.local()

    def start_thread() -> None:
        torch.set_num_threads(1)  # applies to this thread and to threads started from now on
        # Reuse buffers: allocating memory for each part would cost as much as the copy.
        local.buffer = torch.empty(CACHED_ROWS, queries.shape[1])

    def process(indices: np.ndarray, rows: np.ndarray, buffer: Tensor) -> tuple[np.ndarray, Tensor, Result]:
        similarities = buffer[: len(queries) * len(rows)].view(len(queries), len(rows))
        with torch.inference_mode():  # which the caller may be in; it holds for one thread
            multiply(queries, rows, local.buffer, similarities)
        return indices, similarities, examine(indices, rows, similarities)

    free: list[Tensor] = []
    running: deque[tuple[Future[tuple[np.ndarray, Tensor, Result]], Tensor]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=start_thread) as pool:
            for indices, rows in blocks:
                buffer = free.pop() if free else torch.empty(len(queries) * BLOCK)
                running.append((pool.submit(process, indices, rows, buffer), buffer))
                if len(running) > 2 * threads:
                    future, buffer = running.popleft()
                    yield future.result()
                    free.append(buffer)
            while running:
                yield running.popleft()[0].result()
    finally:
        torch.set_num_threads(threads)


def multiply(queries: Tensor, rows: np.ndarray, buffer: Tensor, output: Tensor) -> None:
    """Write the products of queries, (Q, D), and rows, (n, D), of any number type, to output, (Q, n).

    Args:
        queries: (Q, D), in the number type of the product.
        rows: (n, D).
        buffer: (m, D) in the type of the queries, for m converted rows at a time.
        output: (Q, n) in the type of the queries.
    """
    size = len(buffer)
    for part, products in zip(torch.from_numpy(rows).split(size), output.split(size, dim=1), strict=True):
        multiply_slices(queries, buffer[: len(part)].copy_(part), products)


def multiply_slices(queries: Tensor, rows: Tensor, output: Tensor) -> None:
    """Write the products of queries, (Q, D), and rows, (n, D), to output, (Q, n), as a sum over slices of D.

    A slice has few terms, so that the error bound of the sum is smaller than the bound of one long product.
    """
    first, *others = zip(queries.split(SLICE, dim=1), rows.split(SLICE, dim=1), strict=True)
    torch.mm(first[0], first[1].T, out=output)
    products = torch.empty_like(output) if others else output
    for (
        of_queries,
        of_rows,
    ) in others:  # torch.addmm would continue the sum of the previous slices term by term
        output += torch.mm(of_queries, of_rows.T, out=products)


def pair_similarities(
    queries: np.ndarray, of_queries: np.ndarray, database: Rows, of_rows: np.ndarray
) -> np.ndarray:
    """Return the exact similarities of pairs of a query and a row: summed in float64, rounded to float32.

    The order of summation depends on nothing but D, so that equal rows have equal similarities.

    Args:
        queries: (Q, D) float64.
        of_queries: (n,) index of the query of each pair.
        database: (N, D).
        of_rows: (n,) index of the row of each pair.

    Returns:
        (n,) float32.
    """
    similarities = np.empty(len(of_queries), np.float32)
    order = np.argsort(of_rows, kind="stable")  # rows near each other are in the same shard
    for start in range(0, len(order), PAIRS):
        part = order[start : start + PAIRS]
        rows = database[of_rows[part]]
        if rows.dtype == np.float16:  # NumPy multiplies float16 slowly
            rows = torch.from_numpy(rows).float().numpy()
        similarities[part] = (queries[of_queries[part]] * rows).sum(axis=1)
    return similarities
