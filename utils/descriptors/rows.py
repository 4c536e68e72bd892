"""Descriptors by row, in memory or in shards on disk, read in blocks so that memory holds one of them."""

from collections.abc import Iterator, Sequence

import numpy as np

ALL = slice(None)
BLOCK = 4096
"""Rows of an array that are looked at together, which bounds the memory of what is computed of them."""


class StoredRows:
    """The rows of a database of N descriptors that lie in shards on disk, in any order.

    Args:
        shards: (n, D) float16 or float32 arrays. A sequence that maps a file into memory each time that it is
            asked for one keeps no more files open than are looked at: there may be thousands.
        numbers: (N,) int64, for each descriptor of the database its row when the shards are laid end to end.
        lengths: of the shards, in rows; asked of them if not given.
        dimensions: which of their columns count.
    """

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        numbers: np.ndarray,
        lengths: Sequence[int] | None = None,
        dimensions: slice = ALL,
    ) -> None:
        self._shards = shards
        self._numbers = numbers
        self._lengths = list(map(len, shards)) if lengths is None else lengths
        self._dimensions = dimensions
        self._starts = np.cumsum([0, *self._lengths])

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self), self._shard(0).shape[1] if len(self._shards) else 0

    def __getitem__(self, places: np.ndarray | slice) -> np.ndarray:
        """The descriptors at some places of the database, (..., D) float32, read into memory."""
        numbers = self._numbers[places]
        found = np.empty((*numbers.shape, self.shape[1]), np.float32)
        of_shard = np.searchsorted(self._starts, numbers, side="right") - 1
        for shard in np.unique(of_shard):
            chosen = of_shard == shard
            found[chosen] = self._shard(shard)[numbers[chosen] - self._starts[shard]]
        return found

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places in the database, (n,) int64, and their rows, (n, D) as stored, in blocks, each place once.

        Blocks come in the order of the shards, which is that of the disk. Where a block is a run of a shard,
        as most are, its rows are the mapped file itself and nothing is copied.
        """
        order = np.argsort(self._numbers, kind="stable")
        ends = np.searchsorted(self._numbers[order], self._starts)
        for number, (start, first, behind) in enumerate(zip(self._starts, ends, ends[1:], strict=False)):
            if first == behind:
                continue
            shard = self._shard(number)
            for block in range(first, behind, BLOCK):
                places = order[block : min(block + BLOCK, behind)]
                local = self._numbers[places] - start
                is_run = local[-1] - local[0] == len(local) - 1 and (np.diff(local) == 1).all()
                yield places, shard[local[0] : local[-1] + 1] if is_run else shard[local]

    def columns(self, chosen: slice) -> "StoredRows":
        """These descriptors with some of their dimensions alone."""
        return StoredRows(self._shards, self._numbers, self._lengths, chosen)

    def _shard(self, number: int) -> np.ndarray:
        return self._shards[number][:, self._dimensions]


Rows = np.ndarray | StoredRows
"""A database of descriptors, (N, D), by its place."""


def row_blocks(database: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places, (n,) int64, and rows, (n, D), of a database, each place once, in blocks of at most BLOCK."""
    if isinstance(database, StoredRows):
        yield from database.blocks()
        return
    for start in range(0, len(database), BLOCK):
        rows = database[start : start + BLOCK]
        yield np.arange(start, start + len(rows)), rows


def split_columns(database: Rows, parts: int) -> list[Rows]:
    """Return parts of equal width of a database's descriptors, (N, D / parts) each, not copied."""
    width = database.shape[1] // parts
    return [columns(database, slice(part * width, (part + 1) * width)) for part in range(parts)]


def columns(database: Rows, chosen: slice) -> Rows:
    """A database's descriptors with some of their dimensions alone, (N, d), not copied."""
    return database.columns(chosen) if isinstance(database, StoredRows) else database[:, chosen]
