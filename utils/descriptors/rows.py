"""Rows of descriptors, in memory or in shards on disk, which are read in blocks to limit memory."""

from collections.abc import Iterator, Sequence

import numpy as np

ALL = slice(None)
BLOCK = 4096
"""Maximum number of rows per block, which limits the memory of computations on a block."""


class StoredRows:
    """The rows of a database of N descriptors in shards on disk.

    Args:
        shards: arrays (n, D) float16 or float32. If the sequence maps a file into memory on each access, only
            the files in use are open; there can be thousands of files.
        positions: (N,) int64, the row of each descriptor in the concatenated shards.
        lengths: the number of rows of each shard; by default, from the shards.
        dimensions: the columns of the shards to use.
    """

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        positions: np.ndarray,
        lengths: Sequence[int] | None = None,
        dimensions: slice = ALL,
    ) -> None:
        self._shards = shards
        self._positions = positions
        self._lengths = list(map(len, shards)) if lengths is None else lengths
        self._dimensions = dimensions
        self._starts = np.cumsum([0, *self._lengths])

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of descriptors N and their dimension D."""
        return len(self), self._shard(0).shape[1] if len(self._shards) else 0

    @property
    def dtype(self) -> np.dtype:
        """The number type of the descriptors on disk; float32 if there is no shard."""
        return self._shard(0).dtype if len(self._shards) else np.dtype(np.float32)

    def __getitem__(self, indices: np.ndarray | slice) -> np.ndarray:
        """Read the descriptors at some indices of the database, (..., D) float32."""
        positions = self._positions[indices]
        rows = np.empty((*positions.shape, self.shape[1]), np.float32)
        shard_indices = np.searchsorted(self._starts, positions, side="right") - 1
        for shard in np.unique(shard_indices):
            in_shard = shard_indices == shard
            rows[in_shard] = self._shard(shard)[positions[in_shard] - self._starts[shard]]
        return rows

    def blocks(self, first_shard: int = 0, step: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield blocks of indices in the database, (n,) int64, and their rows, (n, D) as stored.

        Each index in the selected shards is yielded once. Blocks are in the order of the shards on disk. If
        the rows of a block are contiguous in a shard, as usual, they are a view of the mapped file and are
        not copied.

        Args:
            first_shard: number of the first shard to read.
            step: distance between the numbers of the shards to read; other shards are not opened.
        """
        if step == 1:
            order = np.argsort(self._positions, kind="stable")
        else:
            numbers = np.searchsorted(self._starts, self._positions, side="right") - 1
            order = np.flatnonzero(numbers % step == first_shard)
            order = order[np.argsort(self._positions[order], kind="stable")]
        ends = np.searchsorted(self._positions[order], self._starts)
        for number, (start, first, end) in enumerate(zip(self._starts, ends, ends[1:], strict=False)):
            if first == end:
                continue
            shard = self._shard(number)
            for block in range(first, end, BLOCK):
                indices = order[block : min(block + BLOCK, end)]
                local = self._positions[indices] - start
                is_contiguous = local[-1] - local[0] == len(local) - 1 and (np.diff(local) == 1).all()
                yield indices, shard[local[0] : local[-1] + 1] if is_contiguous else shard[local]

    def columns(self, selected: slice) -> "StoredRows":
        """Return the descriptors with only some of their dimensions."""
        return StoredRows(self._shards, self._positions, self._lengths, selected)

    def selected(self, indices: np.ndarray | slice) -> "StoredRows":
        """Return the descriptors at some indices of the database, in their order, not read yet."""
        return StoredRows(self._shards, self._positions[indices], self._lengths, self._dimensions)

    def _shard(self, index: int) -> np.ndarray:
        return self._shards[index][:, self._dimensions]


Rows = np.ndarray | StoredRows
"""A database of descriptors, (N, D)."""


def row_blocks(database: Rows, share: int = 0, shares: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of at most BLOCK indices, (n,) int64, and rows, (n, D), of a database, each index once.

    Args:
        database: (N, D).
        share: number of the share to yield, from 0. Shares consist of shards, or of blocks of an array.
        shares: number of shares.
    """
    if isinstance(database, StoredRows):
        yield from database.blocks(share, shares)
        return
    for start in range(share * BLOCK, len(database), shares * BLOCK):
        rows = database[start : start + BLOCK]
        yield np.arange(start, start + len(rows)), rows


def split_columns(database: Rows, parts: int) -> list[Rows]:
    """Return the descriptors of a database split into parts of equal width, (N, D / parts), not copied."""
    width = database.shape[1] // parts
    return [columns(database, slice(part * width, (part + 1) * width)) for part in range(parts)]


def columns(database: Rows, selected: slice) -> Rows:
    """Return the descriptors of a database with only some of their dimensions, (N, d), not copied."""
    return database.columns(selected) if isinstance(database, StoredRows) else database[:, selected]
