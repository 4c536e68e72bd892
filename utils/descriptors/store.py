"""A store of descriptors on disk, which resumes killed runs and is reused by later runs.

A store is a folder of shards, see `utils.descriptors.shards`, and `store.json` with the settings of all its
descriptors. Runs with other settings are refused.

The key of a descriptor depends on the contents of the image, see `image_keys`, so that a changed image is
described again.
"""

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.descriptors.rows import StoredRows
from utils.descriptors.shards import (
    MappedShards,
    discard_shard,
    read_shard,
    remove_leftovers,
    shard_records,
    write_shard,
)
from utils.errors import UserError, advising
from utils.file_names import SHARD_PREFIX, SHARD_ROWS_SUFFIX, STORE_SETTINGS
from utils.files.records import Setting, read_json
from utils.files.writing import make_folder, new_file, user_error_if_unwritable
from utils.options.shared import StorePrecision
from utils.saved_settings import check_same_settings

SHARD_ROWS = 4096
SHARD_SECONDS = 30.0
"""A shard is written after this many rows or seconds; a killed run loses at most so many."""

LARGEST_STORE_RATIO = 2
"""Ratio of stored rows to the rows in use above which a store is compacted."""

FORMAT = 2
"""Version of the files and keys of a store; stores of other versions are refused."""
NAME_ANOTHER = "name another folder for the descriptors"
SAME_OPTIONS = f"give the options that it was made with, or {NAME_ANOTHER}"


class StoredPositions(NamedTuple):
    """The descriptors of some keys in the shards of a store."""

    paths: list[Path]
    """The file of the rows of each shard."""
    lengths: list[int]
    """The number of rows of each shard."""
    positions: np.ndarray
    """(N,) int64, the row of each key in the concatenated shards."""


class DescriptorStore:
    """Descriptors on disk by key; created by `open_store`.

    Args:
        folder: the folder of the store.
        precision: the number type of the stored rows.
    """

    def __init__(self, folder: Path, precision: StorePrecision) -> None:
        self.folder = folder
        self.precision = precision
        self._writer = secrets.token_hex(4)
        """Random text that makes the names of shards of several processes unique."""
        self._shards: dict[str, list[str]] = {}
        """Name of each shard to its keys."""
        self._positions: dict[str, int] = {}
        """Key to the row in the concatenated shards."""
        self._width: int | None = None
        """D of all rows on disk; None until a shard is read."""
        self._serial = 0
        self._new: list[tuple[str, np.ndarray]] = []
        self._new_since = 0.0

    def __contains__(self, key: str) -> bool:
        return key in self._positions

    def __len__(self) -> int:
        return len(self._positions)

    def keys(self) -> list[str]:
        """Return the keys of all descriptors, in the order in which they lie on disk."""
        return sorted(self._positions, key=self._positions.__getitem__)

    @property
    def stored(self) -> int:
        """The number of rows on disk, including rows that later ones replace."""
        return sum(map(len, self._shards.values()))

    def read(self, verify: bool = True) -> None:
        """Read the keys of new shards, which this or another process has written.

        Args:
            verify: compare the checksum of each shard, which reads all its rows.

        Raises:
            UserError: a shard is unreadable or not valid.
        """
        # By increasing serial number: the newest row of a key wins.
        for path in shard_records(self.folder):
            if path.stem in self._shards:
                continue
            try:
                keys, self._width = read_shard(path, verify, self.precision, self._width)
            except FileNotFoundError:  # another process has just replaced it by a new shard
                self.read(verify)
                return
            start = self.stored
            self._shards[path.stem] = keys
            self._positions.update({key: start + row for row, key in enumerate(keys)})
            self._serial = max(self._serial, int(path.stem.split("-")[1]))

    def rows(self, keys: Sequence[str]) -> StoredRows:
        """Return the descriptors of keys, in the order of the keys.

        Raises:
            KeyError: a key is not in the store.
        """
        paths, lengths, positions = self.find(keys)
        return StoredRows(MappedShards(paths), positions, lengths)

    def find(self, keys: Sequence[str]) -> StoredPositions:
        """Return the positions of the descriptors of keys, in the order of the keys.

        Raises:
            KeyError: a key is not in the store.
        """
        positions = np.array([self._positions[key] for key in keys], np.int64)
        paths = [(self.folder / name).with_suffix(SHARD_ROWS_SUFFIX) for name in self._shards]
        return StoredPositions(paths, list(map(len, self._shards.values())), positions)

    def add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Add descriptors, (n, D); `flush` writes them to disk, and `read` makes them available.

        Raises:
            UserError: a shard cannot be written.
        """
        if not self._new:
            self._new_since = time.monotonic()
        self._new += zip(keys, rows.astype(self.precision), strict=True)
        while len(self._new) >= SHARD_ROWS:
            self._write(SHARD_ROWS)
        if time.monotonic() - self._new_since >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write added descriptors that are not on disk yet.

        Raises:
            UserError: the shard cannot be written.
        """
        if self._new:
            self._write(len(self._new))

    def compact(self, keys: Sequence[str]) -> None:
        """Remove all descriptors except the ones of some keys; a kill at any moment loses none of these.

        The descriptors to keep are written to new shards before the old shards are discarded. The old rows
        stay on disk for an hour, for processes that are reading them.

        Raises:
            KeyError: a key is not in the store.
            UserError: a shard cannot be written.
        """
        old = list(self._shards)
        rows = self.rows(keys)
        for start in range(0, len(keys), SHARD_ROWS):
            block = slice(start, start + SHARD_ROWS)
            self.add(keys[block], rows[block])
        self.flush()
        for name in old:
            discard_shard(self.folder, name)
        self._shards, self._positions = {}, {}
        self.read(verify=False)

    def _write(self, count: int) -> None:
        """Write a shard of the first `count` added descriptors."""
        keys, rows = zip(*self._new[:count], strict=True)
        self._serial += 1
        write_shard(self.folder, self._serial, self._writer, keys, np.stack(rows))
        del self._new[:count]
        self._new_since = time.monotonic()


def open_store(
    folder: Path,
    made_with: Mapping[str, object],
    *,
    precision: StorePrecision = "float32",
    verify: bool = True,
    tidy: bool = False,
    advice: str = SAME_OPTIONS,
) -> DescriptorStore:
    """Open a store; create it if it is missing.

    Args:
        folder: the folder of the store.
        made_with: the settings of the descriptors, JSON values.
        precision: the number type of the stored rows.
        verify: compare the checksum of each shard, which reads all its rows.
        tidy: delete files of killed processes.
        advice: what to do if the store has other settings, for the error message.

    Raises:
        UserError: the store has other settings or is not valid, or the folder cannot be written or holds
            other files.
    """
    settings = {"format": FORMAT, "store precision": precision, **made_with}
    path = folder / STORE_SETTINGS
    if not path.exists():
        _check_can_become_store(folder)
        make_folder(folder)
        with new_file(path) as file:  # if two processes with different settings do so, one is refused
            file.write(json.dumps(settings, indent=2).encode() + b"\n")
    with advising(NAME_ANOTHER):
        saved = read_json(path, dict[str, Setting])
    # The error names the folder, not the settings file: with only the file deleted, the shards would be
    # taken for descriptors with the new settings.
    converted = json.loads(json.dumps(settings))  # JSON converts tuples to lists
    check_same_settings(folder, saved, converted, advice)
    if tidy:
        remove_leftovers(folder)
    store = DescriptorStore(folder, precision)
    store.read(verify)
    return store


def forget_empty(folder: Path) -> None:
    """Delete the settings of a store that has no descriptors, so that it takes any; for its only writer.

    Args:
        folder: the folder of the store, which may be missing.

    Raises:
        UserError: the folder cannot be written.
    """
    if not shard_records(folder):
        with user_error_if_unwritable(folder):
            (folder / STORE_SETTINGS).unlink(missing_ok=True)


def _check_can_become_store(folder: Path) -> None:
    """Check that a folder without settings holds no files, except for the files of a store being created.

    Raises:
        UserError: the folder holds other files, or shards without settings.
    """
    if not folder.is_dir():
        return
    store_names = re.compile(rf"\.|{re.escape(STORE_SETTINGS)}\Z|{SHARD_PREFIX}")
    if not all(store_names.match(path.name) for path in folder.iterdir()):
        raise UserError(f"{folder} is not empty and not a descriptor store: {NAME_ANOTHER}")
    # Another process writes the settings before its first shard: if there is a shard, there are settings.
    if shard_records(folder) and not (folder / STORE_SETTINGS).exists():
        raise UserError(
            f"{folder} holds descriptors without {STORE_SETTINGS}, the file of their settings: "
            f"delete the folder, or {NAME_ANOTHER}"
        )
