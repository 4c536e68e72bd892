"""Joint replacement of several files and folders of one folder, once the new ones are complete."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.files.lock import in_turn
from utils.files.writing import TEMPORARY_SUFFIX, user_error_if_unwritable

LOCK = ".lock"
DRAFT = ".draft-"
OLD = "old"


@contextmanager
def replace_entries(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder whose entries replace the named entries of a folder after the block.

    Named entries that the temporary folder lacks are removed. All other entries of the folder stay. If
    several processes do this at once, each waits for the previous one, and the entries of the last one stay.
    After a kill, the old entries are in place or are restored by the next call.

    Args:
        folder: the folder, created if it does not exist.
        names: names of the entries. The last entry exists only while all entries belong together.

    Raises:
        UserError: the folder cannot be written; its entries are then unchanged.
    """
    with user_error_if_unwritable(folder):
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with in_turn(folder / LOCK):
                for left in folder.glob(f"{DRAFT}*{TEMPORARY_SUFFIX}"):
                    if not os.path.lexists(folder / names[-1]):
                        _put_back(left / OLD, folder, names)
                    shutil.rmtree(left, ignore_errors=True)
                draft = folder / f"{DRAFT}{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
                try:
                    (draft / OLD).mkdir(parents=True)
                    yield draft
                    _swap(draft, folder, names)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
        except BaseException:
            if is_new:
                with suppress(OSError):  # the folder is not empty
                    folder.rmdir()
            raise


def _swap(draft: Path, folder: Path, names: Sequence[str]) -> None:
    """Move the entries of a folder aside, beginning with the last, and move the new entries into place."""
    try:
        for name in reversed(names):
            if os.path.lexists(folder / name):
                (folder / name).rename(draft / OLD / name)
        for name in names:
            if (draft / name).exists():
                (draft / name).rename(folder / name)
    except BaseException:
        _put_back(draft / OLD, folder, names)
        raise


def _put_back(old: Path, folder: Path, names: Sequence[str]) -> None:
    """Move the old entries back into the folder, and the new entries out of it."""
    for name in names:
        if os.path.lexists(old / name):
            if os.path.lexists(folder / name):
                (folder / name).rename(old / f"{name}.new")
            (old / name).rename(folder / name)
