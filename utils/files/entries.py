"""Files and folders of one output folder that are replaced together once the new ones are complete."""

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
    """Make a temporary folder whose entries take the place of those of a folder once all are complete.

    Entries that the temporary folder lacks are removed; whatever else is in the folder stays. Processes that
    do so at once wait for each other, and the entries of the last one stay. After a kill the entries from
    before are still there, or are put back by the next call.

    Args:
        folder: made if it does not exist.
        names: of the entries; the last one is present only while all belong together.

    Raises:
        UserError: the folder cannot be written; its entries are then as they were.
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
                with suppress(OSError):  # something else has been put there
                    folder.rmdir()
            raise


def _swap(draft: Path, folder: Path, names: Sequence[str]) -> None:
    """Move the entries of a folder aside, the last one first, and those of the draft into their place."""
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
    """Move entries that were moved aside back, in place of those that came for them."""
    for name in names:
        if os.path.lexists(old / name):
            if os.path.lexists(folder / name):
                (folder / name).rename(old / f"{name}.new")
            (old / name).rename(folder / name)
