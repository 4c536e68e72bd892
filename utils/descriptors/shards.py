"""A shard of a descriptor store: some rows and their keys, whole or not there.

It is two files: its rows, as numpy writes them, to be mapped into memory, and a record of the key of each row
and a check value. The record is written last and both appear whole, so that a killed process leaves a whole
shard or none. A shard's name begins with a serial number and ends with what tells its writer from others.
"""

import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

import numpy as np

from utils.errors import BadFileError, UnreadableFileError
from utils.file_names import SHARD_PREFIX, SHARD_RECORD_SUFFIX, SHARD_ROWS_SUFFIX
from utils.files.arrays import map_array
from utils.files.records import read_json
from utils.files.writing import TEMPORARY_SUFFIX, replace_file

LEFTOVER_SECONDS = 3600.0
PATTERN = f"{SHARD_PREFIX}{'[0-9]' * 8}-*"
"""Of a shard's files' names."""

DELETE_SHARD = "delete it, and what it held will be described anew"


class ShardRecord(TypedDict):
    """Record of a shard."""

    keys: list[str]
    """The key of each row."""
    crc32: int
    """Of all rows."""


class MappedShards(Sequence[np.ndarray]):
    """The rows, (n, D), of shards in some files, each mapped into memory when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> np.ndarray:  # type: ignore[override]  # no slices
        with deletable():  # copy on write, since torch warns of arrays that it may not write to
            return map_array(self._paths[number], (np.float16, np.float32), (None, None), "c")


def shard_records(folder: Path) -> list[Path]:
    """The records of the shards in a folder whose rows are there, by rising serial number."""
    records = sorted(folder.glob(PATTERN + SHARD_RECORD_SUFFIX))
    return [record for record in records if record.with_suffix(SHARD_ROWS_SUFFIX).exists()]


def write_shard(folder: Path, serial: int, writer: str, keys: Sequence[str], rows: np.ndarray) -> None:
    """Writes a shard: rows, (n, D), and then the record by which they count.

    Raises:
        UserError: it cannot be written.
    """
    path = folder / f"{SHARD_PREFIX}{serial:08d}-{writer}"
    with replace_file(path.with_suffix(SHARD_ROWS_SUFFIX)) as file:
        np.save(file, rows)
    record = {"keys": keys, "crc32": zlib.crc32(rows.data)}
    with replace_file(path.with_suffix(SHARD_RECORD_SUFFIX)) as file:
        file.write(json.dumps(record).encode())


def discard_shard(folder: Path, name: str) -> None:
    """Makes a shard count no more; its rows stay for those who read them, and are a leftover in an hour."""
    with suppress(FileNotFoundError):
        os.utime((folder / name).with_suffix(SHARD_ROWS_SUFFIX))
    (folder / name).with_suffix(SHARD_RECORD_SUFFIX).unlink(missing_ok=True)


def read_shard(record: Path, verify: bool, precision: str, width: int | None) -> tuple[list[str], int]:
    """Read the keys of a shard.

    Args:
        record: its record's file.
        verify: whether to compare its check value and to look for values that are not finite, which reads it
            from end to end.
        precision: the number type of its rows.
        width: D, the number of their columns; any if not given.

    Returns:
        The keys, and D.

    Raises:
        FileNotFoundError: it has gone.
        UserError: it is damaged, or cannot be read.
    """
    path = record.with_suffix(SHARD_ROWS_SUFFIX)
    with deletable():
        saved = read_json(record, ShardRecord)
        rows = map_array(path, (np.dtype(precision).type,), (len(saved["keys"]), width), "c")
        if not rows.size:
            raise BadFileError(f"{path} is damaged: it has no values")
        if verify and zlib.crc32(rows.data) != saved["crc32"]:
            raise BadFileError(f"{path} is damaged: its check value is another")
        if verify and not np.isfinite(rows).all():
            raise BadFileError(f"{path} is damaged: it holds values that are not finite")
    return saved["keys"], rows.shape[1]


@contextmanager
def deletable() -> Iterator[None]:
    """Add to the errors of a block about damaged shards that a shard can be deleted.

    A file that cannot be read may be whole, and is not to be deleted.
    """
    try:
        yield
    except UnreadableFileError:
        raise
    except BadFileError as error:
        raise BadFileError(f"{error}; {DELETE_SHARD}") from error


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left: rows without a record and temporary files, an hour old or more."""
    with tempfile.TemporaryFile(dir=folder) as file:
        now = os.fstat(file.fileno()).st_mtime  # by the clock of the disk, which may be another computer's
    for path in [*folder.glob(PATTERN), *folder.glob(f".{PATTERN}")]:
        is_leftover = path.suffix == TEMPORARY_SUFFIX or not path.with_suffix(SHARD_RECORD_SUFFIX).exists()
        with suppress(OSError):  # another process may have removed or renamed it
            if is_leftover and now - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()
