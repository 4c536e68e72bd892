"""Locks between processes that write to the same folder. A lock is released when its process ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import UserError
from utils.files.writing import unwritable

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""Errors of disks that do not support locks."""


@contextmanager
def only_writer(lock: Path, target: Path) -> Iterator[None]:
    """Hold a lock while the block runs, and raise an error if another process holds it.

    Args:
        lock: file of the lock, created and removed again. An existing file with contents is not removed.
        target: the file or folder that is written to, for the error.

    Raises:
        UserError: another process holds the lock, or its file cannot be created.
    """
    try:
        held = _acquired(lock, timeout=0)
    except Timeout as error:
        raise UserError(f"another process is writing to {target}: wait for it") from error
    try:
        yield
    finally:
        _remove(lock)
        held.release()


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Hold a lock while the block runs, after waiting for other processes that hold it.

    Args:
        lock: file of the lock, created and removed again.

    Raises:
        UserError: the file cannot be created.
    """
    held = _acquired(lock, timeout=-1)
    try:
        yield
    finally:
        _remove(lock)
        held.release()


def _acquired(lock: Path, timeout: float) -> FileLock:
    """Acquire a lock, unless the disk does not support locks, and return it.

    Raises:
        Timeout: another process holds the lock.
        UserError: the file of the lock cannot be created.
    """
    held = FileLock(lock, timeout=timeout)
    try:
        held.acquire()
    except Timeout:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise unwritable(lock, error) from error
    return held


def _remove(lock: Path) -> None:
    with suppress(OSError):  # Windows does not remove open files
        if not lock.stat().st_size:  # a file with contents is a file of the user
            lock.unlink()
