"""Writing that leaves either the whole new file or folder, or what was there before."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from utils.errors import UserError


def check_writable(folder: Path) -> None:
    """Checks, before hours of work, that a folder can be written to, or made where it is not there yet.

    Raises:
        UserError: it cannot.
    """
    with _told_of(folder):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        probe = _temporary(existing / "probe")
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
    temporary = _temporary(path)
    try:
        with _told_of(path):
            with temporary.open("wb") as file:
                yield file
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Makes a temporary folder that takes the place of the folder `path` once it is complete.

    Raises:
        UserError: it cannot be written; `path` is then as it was.
    """
    temporary, old = _temporary(path), _temporary(path.with_name(path.name + ".old"))
    try:
        with _told_of(path):
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                path.rename(old)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
