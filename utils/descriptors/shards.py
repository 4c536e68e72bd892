"""A shard of a descriptor store: some rows and their keys, whole or not there.

It is two files: its rows, as numpy writes them, to be mapped into memory, and a record of the key of each row
and a check value. The record is written last and both appear whole, so that a killed process leaves a whole
shard or none. A shard's name begins with a serial number and ends with what tells its writer from others.
"""

import errno
import json
import os
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.file_names import SHARD_PREFIX, SHARD_RECORD_SUFFIX, SHARD_ROWS_SUFFIX
from utils.files.writing import TEMPORARY_SUFFIX, replace_file

LEFTOVER_SECONDS = 3600.0
PATTERN = f"{SHARD_PREFIX}{'[0-9]' * 8}-*"
"""Of a shard's files' names."""

DELETE_SHARD = "delete it, and what it held will be described anew"


class MappedShards(Sequence[np.ndarray]):
    """The rows, (n, D), of shards in some files, each mapped into memory when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> np.ndarray:
        return _mapped(self._paths[number])


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


def read_shard(record: Path, verify: bool) -> list[str]:
    """The keys of a shard.

    Args:
        record: its record's file.
        verify: whether to compare its check value, which reads it from end to end.

    Raises:
        FileNotFoundError: it has gone.
        UserError: it is damaged, or cannot be read.
    """
    path = record.with_suffix(SHARD_ROWS_SUFFIX)
    told = read_record(record, DELETE_SHARD)
    damaged = UserError(f"{path} is damaged: {DELETE_SHARD}")
    try:
        rows = _mapped(path)
        keys, check = told["keys"], told["crc32"]
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # an empty file cannot be mapped
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise damaged from error
    except (ValueError, KeyError, EOFError) as error:
        raise damaged from error
    if not isinstance(keys, list) or rows.ndim != 2 or len(rows) != len(keys):
        raise damaged
    if verify and zlib.crc32(rows.data) != check:
        raise damaged
    return keys


def read_record(path: Path, advice: str) -> dict[str, object]:
    """What a file of JSON tells.

    Raises:
        FileNotFoundError: it has gone.
        UserError: it is damaged, with the advice, or cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {advice}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: {advice}")
    return value


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left: rows without a record and temporary files, an hour old or more."""
    with tempfile.TemporaryFile(dir=folder) as file:
        now = os.fstat(file.fileno()).st_mtime  # by the clock of the disk, which may be another computer's
    for path in [*folder.glob(PATTERN), *folder.glob(f".{PATTERN}")]:
        is_leftover = path.suffix == TEMPORARY_SUFFIX or not path.with_suffix(SHARD_RECORD_SUFFIX).exists()
        with suppress(OSError):  # another process may have removed or renamed it
            if is_leftover and now - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def _mapped(path: Path) -> np.ndarray:
    # copy on write, since torch warns of arrays that it may not write to
    return np.load(path, mmap_mode="c", allow_pickle=False)
