"""Checked reading of text files that a user or a killed run can have left in any state."""

from pathlib import Path

from utils.errors import BadFileError
from utils.files.regular import open_regular

LARGEST_TEXT = 1 << 30
"""Bytes above which a file is not read as text."""


def read_bytes(path: Path) -> bytes:
    """Read a regular file.

    Raises:
        FileNotFoundError: there is none.
        BadFileError: it is a pipe, a device or a folder, too large, or unreadable.
    """
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST_TEXT + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise BadFileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > LARGEST_TEXT:
        raise BadFileError(f"{path} is larger than {LARGEST_TEXT} bytes")
    return data


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        BadFileError: it is missing, no regular file, or in another encoding; the line is named.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        raise BadFileError(f"{path} is missing") from error
    try:
        text = data.decode("utf-8-sig")
        bad = data.find(b"\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        raise BadFileError(f"{path}, line {line}: cannot be read as text: save it as UTF-8")
    return text.replace("\r\n", "\n")


def parse_index(text: str, count: int) -> int:
    """Return the index in 0..count - 1 that a user wrote in ASCII digits.

    Raises:
        ValueError: it is anything else.
    """
    digits = text.lstrip("0") or "0"
    if not (text.isascii() and text.isdecimal()) or len(digits) > len(str(count)) or int(digits) >= count:
        raise ValueError(f"{text[:40]!a} is no index in 0..{count - 1}")
    return int(digits)
