"""Opening of regular files only, since opening a pipe or a device can block."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))


class NotRegularError(OSError):
    """Error for a path that leads to a pipe, a device, a socket or a folder instead of a file."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Anything else is refused without being opened, since opening a pipe waits for a writer and opening a
    device may change its state.

    Args:
        path: the file.

    Returns:
        The file, to be closed by the caller.

    Raises:
        NotRegularError: the path leads to something that is not a regular file.
        OSError: the file cannot be opened.
    """
    _check(os.stat(path))  # noqa: PTH116  millions of files
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  Path.open has no opener
    try:
        _check(os.fstat(file.fileno()))  # another file may have taken its name meanwhile
    except NotRegularError:
        file.close()
        raise
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # absent on Windows, as are its pipes


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in KINDS if is_kind(status.st_mode)), "a device")
        raise NotRegularError(f"it is {kind}, not a file")
