"""Exact search for the most similar descriptors, in blocks, without the similarities to all the others."""

import numpy as np
import torch

from utils.descriptor_rows import BLOCK, Rows, row_blocks

ROUNDING = 2e-4
"""More than a float32 dot product of two vectors of length 1 can be wrong by: 2048 / 2^24, rounded up."""

PAIRS = 4096
"""Candidates whose similarity is computed once more at a time, which bounds the memory of it."""


def exact_search(
    queries: np.ndarray, database: Rows, count: int, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The database's first images by falling similarity to each query, ties in the database's order.

    A float32 matrix product finds the candidates of each block; theirs alone are computed in float64 and
    rounded, as `utils.ranking.similarities` does. So the result is to the bit what a sort of all of those
    would give, at the speed of the float32 product.

    Args:
        queries: (Q, D), of length 1 at most, as all descriptors are.
        database: (N, D), likewise.
        count: how many; all where there are fewer.
        device: where to multiply.

    Returns:
        Places, (Q, min(count, N)) int64, and similarities, likewise float32.
    """
    count = min(count, len(database))
    wide = queries.astype(np.float64)
    left = torch.from_numpy(queries.astype(np.float32)).to(device)
    numbers = np.repeat(np.arange(len(queries)), count)
    # Before anything is found, places behind the last one, of no similarity at all.
    places = np.full(len(numbers), len(database), np.int64)
    found = np.full(len(numbers), -np.inf, np.float32)
    if count == 0 or len(queries) == 0:
        return places.reshape(len(queries), count), found.reshape(len(queries), count)
    bound = found.reshape(len(queries), count)[:, -1]
    buffer = torch.empty(
        BLOCK, queries.shape[1], device=device
    )  # fresh memory for each block costs as much again
    for block_places, rows in row_blocks(database):
        similar = left @ buffer[: len(rows)].copy_(torch.from_numpy(rows)).T
        if np.isinf(bound).any() and similar.shape[1] >= count:
            # not yet so many found as wanted: the block's own say what is certainly not among the first
            bound = np.maximum(bound, similar.topk(count).values[:, -1].cpu().numpy() - ROUNDING)
        limit = torch.from_numpy(bound - np.float32(ROUNDING)).to(device)
        candidates = np.flatnonzero((similar >= limit[:, None]).cpu().numpy())  # torch's own takes far longer
        if not len(candidates):
            continue
        query, column = np.divmod(candidates, len(rows))
        exact = np.concatenate(
            [
                (wide[query[start : start + PAIRS]] * rows[column[start : start + PAIRS]]).sum(axis=1)
                for start in range(0, len(query), PAIRS)
            ]
        ).astype(np.float32)
        numbers = np.concatenate([numbers, query])
        places = np.concatenate([places, block_places[column]])
        found = np.concatenate([found, exact])
        order = np.lexsort((places, -found, numbers))
        first = np.searchsorted(numbers[order], np.arange(len(queries)))
        kept = order[(first[:, None] + np.arange(count)).ravel()]
        numbers, places, found = numbers[kept], places[kept], found[kept]
        bound = found.reshape(len(queries), count)[:, -1]
    return places.reshape(len(queries), count), found.reshape(len(queries), count)
