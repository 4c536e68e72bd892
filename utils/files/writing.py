"""Writing of files under a temporary name. A file replaces the old one only when it is complete."""

import errno
import hashlib
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from utils.errors import UserError

TEMPORARY_SUFFIX = ".tmp"

LONGEST_NAME = 100
"""Largest number of bytes of a file's name that its temporary names contain."""

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process or this disk allows (ulimit -f)",
}
"""Reasons, by error number, for which there is no space to write."""

DESCRIPTORS = re.compile(r"/dev/fd/([0-9]{1,9})|/proc/self/fd/([0-9]{1,9})|/dev/(stdout|stderr)")


def check_writable(folder: Path) -> None:
    """Check, before hours of work, that a folder can be written to, or created if it does not exist.

    Raises:
        UserError: the folder cannot be written to or created.
    """
    with user_error_if_unwritable(folder):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        probe = _unique(existing / "probe")
        probe.touch()
        probe.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists.

    Raises:
        UserError: the folder cannot be created.
    """
    with user_error_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)


def is_special(path: Path) -> bool:
    """Return whether a path leads to a device, a pipe or an open file, which cannot be replaced."""
    if DESCRIPTORS.fullmatch(str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing, which replaces `path` after the block.

    If `path` is a link, the file that it leads to is replaced. Devices and pipes are written to directly.

    Raises:
        UserError: the file cannot be written; `path` is then unchanged.
    """
    if is_special(path):
        with user_error_if_unwritable(path), _opened_special(path) as file:
            yield file
        return
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    with _written(target, lambda temporary: temporary.replace(target)) as file:
        yield file


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing, which is renamed to `path` after the block unless `path` exists.

    Raises:
        UserError: the file cannot be written.
    """

    def put(temporary: Path) -> None:
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a disk without links
            temporary.replace(path)

    with _written(path, put) as file:
        yield file


@contextmanager
def user_error_if_unwritable(path: Path) -> Iterator[None]:
    """Turn errors of the operating system in a block into user errors that name a file.

    Raises:
        UserError: the block raised an OSError, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """Return a user error that a file or folder cannot be written, with the reason."""
    reason = REASONS.get(error.errno) if error.errno is not None else None
    return UserError(f"cannot write {path}: {reason or error.strerror or error}")


def short_name(path: Path) -> str:
    """Return the name of a path, shortened to its beginning and a digest if it is long.

    Temporary names are longer than this name and must fit the limit of the system.
    """
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path.name
    return f"{path.name[: LONGEST_NAME // 4]}-{hashlib.sha256(name).hexdigest()[:16]}"


class _RawFile(io.FileIO):
    """New file that remembers its first error, since libraries replace it with their own errors."""

    failure: OSError | None = None

    def write(self, data: "Buffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise


class _BufferedFile(io.BufferedWriter):
    """Buffered file without a descriptor, to which NumPy and Pillow would write and lose the errors."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def _written(path: Path, put: Callable[[Path], object]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` for writing, and call `put` with it after the block."""
    temporary = _unique(path)
    try:
        with user_error_if_unwritable(path):
            raw = _RawFile(temporary, "xb")
            try:
                with _BufferedFile(raw) as file:
                    yield file
            except Exception as error:
                if raw.failure is not None:
                    raise unwritable(path, raw.failure) from error
                raise
            finally:
                raw.close()
            put(temporary)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _opened_special(path: Path) -> Iterator[IO[bytes]]:
    """Open a device or a pipe for writing, or duplicate a descriptor that this process has open."""
    match = DESCRIPTORS.fullmatch(str(path))
    if match is None:
        with path.open("wb") as file:
            yield file
        return
    if sys.stdout is not None:
        sys.stdout.flush()
    number = {"stdout": 1, "stderr": 2}.get(match[3]) or int(match[1] or match[2])
    with os.fdopen(os.dup(number), "wb") as file:
        yield file


def _unique(path: Path) -> Path:
    """Return a temporary name that no other process uses, on any computer.

    Process numbers alone are not enough, since processes in different containers have the same ones.
    """
    name = f".{short_name(path)}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    return path.with_name(name)
