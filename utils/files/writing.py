"""The writer of every file: a file is complete under its name, or what was there before stays."""

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
"""Bytes of a file's name that its temporary names repeat."""

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process or this disk allows (ulimit -f)",
}
"""Errors for which there is no space, in words."""

DESCRIPTORS = re.compile(r"/dev/fd/([0-9]{1,9})|/proc/self/fd/([0-9]{1,9})|/dev/(stdout|stderr)")


def check_writable(folder: Path) -> None:
    """Check, before hours of work, that a folder can be written to, or made if it does not exist.

    Raises:
        UserError: it cannot.
    """
    with user_error_if_unwritable(folder):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        probe = _unique(existing / "probe")
        probe.touch()
        probe.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder unless it exists.

    Raises:
        UserError: it cannot be made.
    """
    with user_error_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)


def is_special(path: Path) -> bool:
    """Return whether a path leads to a device, a pipe or an open file, which is written as it is."""
    if DESCRIPTORS.fullmatch(str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing that takes the place of `path` once it is complete.

    A link keeps its place: the file that it leads to is replaced. Devices and pipes are written as they are.

    Raises:
        UserError: it cannot be written; `path` is then as it was.
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
    """Open a temporary file for writing that becomes `path` once complete, unless that exists by then.

    Raises:
        UserError: it cannot be written.
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
        UserError: the block failed for want of space, permission and the like.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """Return the error that a file or folder cannot be written, with its reason in words."""
    reason = REASONS.get(error.errno) if error.errno is not None else None
    return UserError(f"cannot write {path}: {reason or error.strerror or error}")


def short_name(path: Path) -> str:
    """Return a path's name, or its beginning and a digest if it is long: temporary names add to it."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path.name
    return f"{path.name[: LONGEST_NAME // 4]}-{hashlib.sha256(name).hexdigest()[:16]}"


class _RawFile(io.FileIO):
    """A new file that remembers its first failure, in whose place libraries raise errors of their own."""

    failure: OSError | None = None

    def write(self, data: "Buffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise


class _BufferedFile(io.BufferedWriter):
    """A buffered file without a descriptor: NumPy and Pillow would write to that and lose its errors."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def _written(path: Path, put: Callable[[Path], object]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` for writing, and have it put into its place once complete."""
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
    """Open a device or a pipe; of a file that this process has open already, the same open file."""
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
    """Return a name that no other process takes, on no computer: in containers many have the same number."""
    name = f".{short_name(path)}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    return path.with_name(name)
