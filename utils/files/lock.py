"""Locks between the processes that write to one folder; a lock ends with its process."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import UserError
from utils.files.writing import unwritable

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""Errors of disks that have no locks."""


@contextmanager
def only_writer(lock: Path, target: Path) -> Iterator[None]:
    """Hold a lock while the block runs, and refuse a second process.

    Args:
        lock: the lock's file, made and removed again; a file of the user that has its name stays.
        target: the file or folder that is written to, for the error.

    Raises:
        UserError: another process holds it, or it cannot be made.
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
    """Hold a lock while the block runs, once the processes that hold it have released it.

    Args:
        lock: the lock's file, made and removed again.

    Raises:
        UserError: it cannot be made.
    """
    held = _acquired(lock, timeout=-1)
    try:
        yield
    finally:
        _remove(lock)
        held.release()


def _acquired(lock: Path, timeout: float) -> FileLock:
    """Return the lock, held unless the disk has no locks.

    Raises:
        Timeout: another process holds it.
        UserError: its file cannot be made.
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
    with suppress(OSError):  # Windows removes no file that is open
        if not lock.stat().st_size:  # a lock's file is empty: this is none of the user's
            lock.unlink()
