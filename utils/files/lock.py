"""A lock that keeps a second process from writing to a folder; it goes when its process does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second process out
    fcntl = None  # type: ignore[assignment]  # the module's type, not an optional one


@contextmanager
def only_writer(lock: Path) -> Iterator[None]:
    """Holds a lock for as long as the block lasts.

    Args:
        lock: the lock's file, made where it is missing and left there.

    Raises:
        UserError: another process holds it.
    """
    with lock.open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"another process is writing to {lock.parent}: wait for it") from error
            except OSError:  # a disk without locks
                pass
        yield
