"""Shards of a descriptor store: files with a part of its rows and their keys.

A shard is two files: a NumPy file of rows, to be mapped into memory, and a record with the key of each row
and a checksum. Both are written under a temporary name, the record last, so that a killed process leaves a
complete shard or none. The name of a shard starts with a serial number and ends with a random text that
identifies its writer.
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
"""Pattern of the file names of shards, without suffix."""

DELETE_SHARD = "delete it, and its images will be described again"


class ShardRecord(TypedDict):
    """Record of a shard."""

    keys: list[str]
    """The key of each row."""
    crc32: int
    """Checksum of all rows."""


class MappedShards(Sequence[np.ndarray]):
    """The rows, (n, D), of shards, each mapped into memory on access."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # no slices
        with advise_deletion():  # mapped copy-on-write, since torch warns about read-only arrays
            return map_array(self._paths[index], (np.float16, np.float32), (None, None), "c")


def shard_records(folder: Path) -> list[Path]:
    """Return the records of the complete shards in a folder, by increasing serial number."""
    records = sorted(folder.glob(PATTERN + SHARD_RECORD_SUFFIX))
    return [record for record in records if record.with_suffix(SHARD_ROWS_SUFFIX).exists()]


def write_shard(folder: Path, serial: int, writer: str, keys: Sequence[str], rows: np.ndarray) -> None:
    """Write a shard: first its rows, (n, D), then its record.

    Raises:
        UserError: the shard cannot be written.
    """
    path = folder / f"{SHARD_PREFIX}{serial:08d}-{writer}"
    with replace_file(path.with_suffix(SHARD_ROWS_SUFFIX)) as file:
        np.save(file, rows)
    record = {"keys": keys, "crc32": zlib.crc32(rows.data)}
    with replace_file(path.with_suffix(SHARD_RECORD_SUFFIX)) as file:
        file.write(json.dumps(record).encode())


def discard_shard(folder: Path, name: str) -> None:
    """Delete the record of a shard. Its rows stay for other readers, and count as a leftover in an hour."""
    with suppress(FileNotFoundError):
        os.utime((folder / name).with_suffix(SHARD_ROWS_SUFFIX))
    (folder / name).with_suffix(SHARD_RECORD_SUFFIX).unlink(missing_ok=True)


def read_shard(record: Path, verify: bool, precision: str, width: int | None) -> tuple[list[str], int]:
    """Read the keys of a shard.

    Args:
        record: the record file of the shard.
        verify: compare the checksum and check that all values are finite, which reads all rows.
        precision: the number type of the rows.
        width: D, the number of columns; None for any number.

    Returns:
        The keys, and D.

    Raises:
        FileNotFoundError: the shard was deleted.
        UserError: the shard is unreadable or not valid.
    """
    path = record.with_suffix(SHARD_ROWS_SUFFIX)
    with advise_deletion():
        saved = read_json(record, ShardRecord)
        rows = map_array(path, (np.dtype(precision).type,), (len(saved["keys"]), width), "c")
        if not rows.size:
            raise BadFileError(f"{path} is unreadable: it has no values")
        if verify and zlib.crc32(rows.data) != saved["crc32"]:
            raise BadFileError(f"{path} is unreadable: its checksum does not match")
        if verify and not np.isfinite(rows).all():
            raise BadFileError(f"{path} is unreadable: it holds values that are not finite")
    return saved["keys"], rows.shape[1]


@contextmanager
def advise_deletion() -> Iterator[None]:
    """Add to the errors of a block about invalid shards the advice to delete the shard.

    Unreadable files may be valid and should not be deleted.
    """
    try:
        yield
    except UnreadableFileError:
        raise
    except BadFileError as error:
        raise BadFileError(f"{error}; {DELETE_SHARD}") from error


def remove_leftovers(folder: Path) -> None:
    """Delete files of killed processes: rows without a record and temporary files older than an hour."""
    with tempfile.TemporaryFile(dir=folder) as file:
        now = os.fstat(file.fileno()).st_mtime  # a network disk has the clock of another computer
    for path in [*folder.glob(PATTERN), *folder.glob(f".{PATTERN}")]:
        is_leftover = path.suffix == TEMPORARY_SUFFIX or not path.with_suffix(SHARD_RECORD_SUFFIX).exists()
        with suppress(OSError):  # another process may have removed or renamed it
            if is_leftover and now - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()
