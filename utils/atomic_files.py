"""Writing that leaves either the whole new file or folder, or what was there before."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from utils.errors import UserError

RACED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT})
"""What renaming a folder fails with when another process has just renamed the same one."""

TRIES = 10
TEMPORARY_SUFFIX = ".tmp"


def check_writable(folder: Path) -> None:
    """Checks, before hours of work, that a folder can be written to, or made where it is not there yet.

    Raises:
        UserError: it cannot.
    """
    with _told_of(folder):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        probe = _unique(existing / "probe")
        probe.touch()
        probe.unlink()


def make_folder(folder: Path) -> None:
    """Makes a folder, or finds it there.

    Raises:
        UserError: it cannot be made.
    """
    with _told_of(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file for writing that takes the place of `path` once it is complete.

    Raises:
        UserError: it cannot be written; `path` is then as it was.
    """
    with _written(path, lambda temporary: temporary.replace(path)) as file:
        yield file


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file for writing that becomes `path` once complete, unless that is there by then.

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
def _written(path: Path, put: Callable[[Path], object]) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` for writing, and has it put into its place once it is complete."""
    temporary = _unique(path)
    try:
        with _told_of(path):
            with temporary.open("wb") as file:
                yield file
            put(temporary)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Makes a temporary folder that takes the place of the folder `path` once it is complete.

    Of several processes that do so at once the last one's folder stays. Temporary folders of processes that
    were killed on this computer are removed.

    Args:
        path: the folder.
        keep: asked once the temporary folder is complete; if true it is dropped, and `path` stays as it is:
            another process may have put there what is wanted.

    Raises:
        UserError: it cannot be written, or is a file or a link; `path` is then as it was.
    """
    temporary, old = _temporary(path), _temporary(path.with_name(path.name + ".old"))
    try:
        with _told_of(path):
            _check_replaceable(path)
            _remove_leftovers(path, old)
            temporary.mkdir(parents=True)
            yield temporary
            for tries_left in reversed(range(TRIES)):
                try:
                    if not keep():
                        _swap(temporary, path, old)
                    break
                except OSError as error:
                    if error.errno not in RACED or not tries_left:
                        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"cannot write {path}: it is a file or a link, not a folder: move it away")


def _remove_leftovers(path: Path, trash: Path) -> None:
    """Removes the temporary folders for `path` of processes that are no more, by way of the name `trash`."""
    name = re.compile(rf"\.{re.escape(path.name)}(\.old)?\.(\d{{1,9}})\.tmp")
    shutil.rmtree(trash, ignore_errors=True)
    for folder in path.parent.glob(".*.tmp"):
        match = name.fullmatch(folder.name)
        if match and folder.is_dir() and not folder.is_symlink() and not _is_of_another(int(match[2])):
            with suppress(OSError):
                # if its process runs after all, on another computer, that one now fails: it must not go on
                # with a folder that is half deleted
                folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def _is_of_another(process: int) -> bool:
    """Whether the process runs and is not this one, whose number an earlier one may have had."""
    if os.name == "nt":
        return True  # os.kill would send it a Ctrl-C there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _swap(draft: Path, path: Path, old: Path) -> None:
    """Moves `path`, if it is there, to `old` and `draft` to `path`, or leaves `path` as it was."""
    _check_replaceable(path)
    try:
        if path.exists():
            path.rename(old)
        draft.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def _unique(path: Path) -> Path:
    """A name that no other process takes, on no computer: in containers many have the same number."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
