"""Replacement of a folder once the new folder is complete."""

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
"""Errors of renaming a folder that another process has just renamed."""

TRIES = 10


@contextmanager
def replace_folder(path: Path, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Yield a temporary folder that replaces the folder `path` after the block.

    If several processes do this at once, the folder of the last one stays. Temporary folders of processes
    that were killed on this computer are removed.

    Args:
        path: the folder.
        keep: function called after the block. If it returns True, `path` is not replaced, for example because
            another process has written the same contents.

    Raises:
        UserError: `path` cannot be written, or is a file or a link. `path` is then unchanged, and folders
            created above it are removed.
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
        with suppress(OSError):  # a folder that is not empty stays, and so do the folders above it
            for folder in made:
                folder.rmdir()


def _check_replaceable(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"cannot write {path}: it is a file or a link, not a folder: move it away")


def _remove_leftovers(path: Path, trash: Path) -> None:
    """Rename the temporary folders for `path` of processes that have ended to `trash`, and delete them."""
    name = re.compile(rf"\.{re.escape(short_name(path))}(\.old)?\.([0-9]{{1,9}})\.tmp")
    shutil.rmtree(trash, ignore_errors=True)
    for folder in path.parent.glob(".*.tmp"):
        match = name.fullmatch(folder.name)
        if match and folder.is_dir() and not folder.is_symlink() and not _is_of_another(int(match[2])):
            with suppress(OSError):
                # If its process runs on another computer, the renaming makes that process fail, instead of
                # letting it continue with a folder of which half is deleted.
                folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def _is_of_another(process: int) -> bool:
    """Return whether a process runs and is another one. This process can have the number of an ended one."""
    if os.name == "nt":
        return True  # os.kill would send a Ctrl-C on Windows
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _swap(draft: Path, path: Path, old: Path) -> None:
    """Move `path`, if it exists, to `old`, and `draft` to `path`. If that fails, `path` is unchanged."""
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
