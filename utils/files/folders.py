"""Folders that are replaced once the new one is complete; until then the old one stays."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError
from utils.files.writing import TEMPORARY_SUFFIX, short_name, user_error_if_unwritable

RACED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT})
"""What renaming a folder fails with when another process has just renamed the same one."""

TRIES = 10


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
        UserError: it cannot be written, or is a file or a link; `path` is then as it was, and of the folders
            above it none is left that was made for it.
    """
    temporary, old = _temporary(path), _temporary(path, ".old")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        with user_error_if_unwritable(path):
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
        with suppress(OSError):  # one that is not empty stays, and so do those above it
            for folder in made:
                folder.rmdir()


def _check_replaceable(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"cannot write {path}: it is a file or a link, not a folder: move it away")


def _remove_leftovers(path: Path, trash: Path) -> None:
    """Removes the temporary folders for `path` of processes that are no more, by way of the name `trash`."""
    name = re.compile(rf"\.{re.escape(short_name(path))}(\.old)?\.([0-9]{{1,9}})\.tmp")
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
    """Return whether the process runs and is not this one, which may have got the number of an ended one."""
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


def _temporary(path: Path, mark: str = "") -> Path:
    return path.with_name(f".{short_name(path)}{mark}.{os.getpid()}{TEMPORARY_SUFFIX}")
