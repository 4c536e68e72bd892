"""A store of descriptors on disk, from which a killed run goes on and the next one starts at once.

A store is a folder of shards, see `descriptor_shards`, and `store.json`, which says what all descriptors were
made with; a run with anything else is refused.

Keys are text that changes with an image's contents, see `image_keys`: a changed file is not found, and so
described anew.
"""

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

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
from utils.files.writing import make_folder, new_file
from utils.options.shared import StorePrecision
from utils.processes import Processes
from utils.saved_settings import check_same_settings

SHARD_ROWS = 4096
SHARD_SECONDS = 30.0
"""A shard is written when it has so many rows or is so old: what a killed run loses at most."""

FORMAT = 2
"""Rises when the files or the keys of a store change: older stores are refused."""
NAME_ANOTHER = "name another folder for the descriptors"


class DescriptorStore:
    """Descriptors on disk by key; made by `open_store`.

    Args:
        folder: the store's folder.
        precision: the number type that rows are kept in.
    """

    def __init__(self, folder: Path, precision: StorePrecision) -> None:
        self.folder = folder
        self.precision = precision
        self._writer = secrets.token_hex(4)
        """Keeps the names of shards apart that several processes write at once."""
        self._shards: dict[str, list[str]] = {}
        """The keys of each, by its name."""
        self._numbers: dict[str, int] = {}
        self._width: int | None = None
        """D, of all rows on disk."""
        self._serial = 0
        self._new: list[tuple[str, np.ndarray]] = []
        self._new_since = 0.0

    def __contains__(self, key: str) -> bool:
        return key in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def stored(self) -> int:
        """Descriptors on disk, those that later ones stand for included."""
        return sum(map(len, self._shards.values()))

    def read(self, verify: bool = True) -> None:
        """Looks for shards that were not there before, this process's own and others'.

        Args:
            verify: whether to compare the check value of each, which reads it once from end to end.

        Raises:
            UserError: a shard is damaged.
        """
        # In the order of their serial numbers, which their names begin with: of a key's rows the last holds.
        for path in shard_records(self.folder):
            if path.stem in self._shards:
                continue
            try:
                keys, self._width = read_shard(path, verify, self.precision, self._width)
            except FileNotFoundError:  # another process has just written what it held anew
                self.read(verify)
                return
            start = self.stored
            self._shards[path.stem] = keys
            self._numbers.update({key: start + row for row, key in enumerate(keys)})
            self._serial = max(self._serial, int(path.stem.split("-")[1]))

    def rows(self, keys: Sequence[str]) -> StoredRows:
        """The descriptors of these keys, in this order.

        Raises:
            KeyError: one is not in the store.
        """
        numbers = np.array([self._numbers[key] for key in keys], np.int64)
        paths = [(self.folder / name).with_suffix(SHARD_ROWS_SUFFIX) for name in self._shards]
        return StoredRows(MappedShards(paths), numbers, list(map(len, self._shards.values())))

    def add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Takes in descriptors, (n, D); they are on disk after the next `flush`, and to be had after `read`.

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
        """Writes what was taken in and is not on disk yet.

        Raises:
            UserError: it cannot be written.
        """
        if self._new:
            self._write(len(self._new))

    def compact(self, keys: Sequence[str]) -> None:
        """Drops all but the descriptors of these keys, of which a kill at any moment loses none.

        They are written again before what was there stops to count. Its rows stay for an hour, for those who
        are reading them.

        Raises:
            KeyError: one is not in the store.
            UserError: they cannot be written.
        """
        old = list(self._shards)
        rows = self.rows(keys)
        for start in range(0, len(keys), SHARD_ROWS):
            block = slice(start, start + SHARD_ROWS)
            self.add(keys[block], rows[block])
        self.flush()
        for name in old:
            discard_shard(self.folder, name)
        self._shards, self._numbers = {}, {}
        self.read(verify=False)

    def _write(self, count: int) -> None:
        """Writes a shard of the first `count` new descriptors: rows, then the record by which they count."""
        keys, rows = zip(*self._new[:count], strict=True)
        self._serial += 1
        write_shard(self.folder, self._serial, self._writer, keys, np.stack(rows))
        del self._new[:count]
        self._new_since = time.monotonic()


def open_shared_store(
    folder: Path, made_with: Mapping[str, object], precision: StorePrecision, processes: Processes
) -> DescriptorStore:
    """Open a store in all processes; the first process makes it if there is none.

    Args:
        folder: its folder, one for all processes.
        made_with: what the descriptors depend on, as JSON can hold it.
        precision: the number type that rows are kept in.
        processes: the processes.

    Raises:
        UserError: as `open_store`.
    """
    if processes.leads:
        open_store(folder, made_with, precision=precision, verify=False, tidy=True)
    processes.gather([])
    return open_store(folder, made_with, precision=precision)


def open_store(
    folder: Path,
    made_with: Mapping[str, object],
    *,
    precision: StorePrecision = "float32",
    verify: bool = True,
    tidy: bool = False,
) -> DescriptorStore:
    """Opens a store, or makes one where there is none.

    Args:
        folder: its folder.
        made_with: what the descriptors depend on, as JSON can hold it.
        precision: the number type that rows are kept in.
        verify: whether to compare the check value of each shard, which reads it once from end to end.
        tidy: whether to remove what killed processes left there.

    Raises:
        UserError: it was made with other settings or is damaged, or the folder cannot be written or holds
            something else.
    """
    settings = {"format": FORMAT, "store precision": precision, **made_with}
    path = folder / STORE_SETTINGS
    if not path.exists():
        _check_can_become_store(folder)
        make_folder(folder)
        with new_file(path) as file:  # of two processes with different settings one is refused
            file.write(json.dumps(settings, indent=2).encode() + b"\n")
    # through JSON, so that what is compared is what is written: a tuple comes back as a list
    with advising(NAME_ANOTHER):
        saved = read_json(path, dict[str, Setting])
    # The error names the folder: without its settings alone, the shards would count as made with others.
    check_same_settings(folder, saved, json.loads(json.dumps(settings)))
    if tidy:
        remove_leftovers(folder)
    store = DescriptorStore(folder, precision)
    store.read(verify)
    return store


def _check_can_become_store(folder: Path) -> None:
    """Check that a folder without settings holds nothing but what another process has just begun to write.

    Raises:
        UserError: it holds shards of a store whose settings are gone, or something else.
    """
    if not folder.is_dir():
        return
    ours = re.compile(rf"\.|{re.escape(STORE_SETTINGS)}\Z|{SHARD_PREFIX}")
    if not all(ours.match(entry.name) for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and no descriptor store: {NAME_ANOTHER}")
    # Every process writes the settings before its first shard, so another process's are there by now.
    if shard_records(folder) and not (folder / STORE_SETTINGS).exists():
        raise UserError(
            f"{folder} holds descriptors without the file {STORE_SETTINGS} that says how they were made: "
            f"delete the folder, or {NAME_ANOTHER}"
        )
