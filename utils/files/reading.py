"""Checked reading of files, whose contents are not trusted."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import BadFileError, UnreadableFileError
from utils.files.regular import NotRegularError, open_regular

LARGEST_TEXT = 1 << 30
"""Largest number of bytes of a file that is read at once."""

DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""Pattern of a decimal number with the digits 0 to 9, without underscores, nan and inf."""


@contextmanager
def open_checked(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading, and turn errors of the operating system into user errors.

    Raises:
        FileNotFoundError: the file does not exist.
        BadFileError: it is a pipe, a device or a folder.
        UnreadableFileError: the system cannot read the file.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise
    except NotRegularError as error:
        raise BadFileError(f"cannot read {path}: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: the path holds a null character
        raise _unreadable(path, error) from error
    with file:
        try:
            yield file
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnreadableFileError:
    return UnreadableFileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}")


def read_bytes(path: Path) -> bytes:
    """Read a regular file.

    Raises:
        FileNotFoundError: the file does not exist.
        BadFileError: it is a pipe, a device or a folder, or is too large.
        UnreadableFileError: the system cannot read the file.
    """
    with open_checked(path) as file:
        # Checked first, since `file.read(LARGEST_TEXT)` would reserve that much memory for any file.
        if os.fstat(file.fileno()).st_size > LARGEST_TEXT:
            raise BadFileError(f"{path} is larger than {LARGEST_TEXT} bytes")
        return file.read()


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        BadFileError: the file is missing, is not a regular file or is not in UTF-8. The message names the
            line.
        UnreadableFileError: the system cannot read the file.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        raise BadFileError(f"{path} is missing") from error
    try:
        text = data.decode("utf-8-sig")
        invalid = data.find(b"\0")
    except UnicodeDecodeError as error:
        text, invalid = "", error.start
    if invalid >= 0:
        line = data.count(b"\n", 0, invalid) + 1
        raise BadFileError(f"{path}, line {line}: cannot be read as text: save it as UTF-8")
    return text.replace("\r\n", "\n")


def parse_index(text: str, count: int) -> int:
    """Return the index in 0..count - 1 that a text holds in ASCII digits.

    Raises:
        ValueError: the text is no such index.
    """
    digits = text.lstrip("0") or "0"
    if not (text.isascii() and text.isdecimal()) or len(digits) > len(str(count)) or int(digits) >= count:
        raise ValueError(f"{text[:40]!a} is no index in 0..{count - 1}")
    return int(digits)


def parse_number(text: str) -> float:
    """Return the number that a text holds in ASCII digits, such as `-12`, `.5` or `1e3`.

    Raises:
        ValueError: the text is no such number, for example `1_0`, `nan` or a number too large for float64.
    """
    number = float(text) if DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]!a} is no number")
    return number
