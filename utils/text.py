"""File names as text: escaped for one line of a terminal or a page, listed, and digested."""

import hashlib
import logging
import sys
import unicodedata
from collections.abc import Collection, Iterable

ESCAPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that end a line, or that stand for bytes that are no text."""

ESCAPED_DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Unicode directional classes of characters that change the order in which others are shown."""

DIRECTION_MARKS = frozenset("\u200e\u200f\u061c")
"""Invisible characters that move their neighbours."""


LONGEST_VALUE = 80
"""Characters of a value that a message repeats in full."""


def escape_misleading(text: str) -> str:
    """Return text as one line to read, with backslash escapes for the characters that would mislead.

    Those are line ends and other control characters, bytes of a file name that are no text, and characters
    that change the order of others, by which one name can look like another.
    """
    return "".join(
        character.encode("unicode_escape").decode() if _misleads(character) else character
        for character in text
    )


def first_names(names: Collection[str]) -> str:
    """Return the first three names in sorted order, for a note."""
    first = sorted(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > len(first) else "")


def shorten(value: object) -> str:
    """Return the repr of a value for a message, with its middle left out if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= LONGEST_VALUE else f"{text[:30]}...{text[-10:]}"


def digest_of_names(names: Iterable[str]) -> str:
    """Return the SHA-256 of file names in their order, in hexadecimal.

    Names may hold bytes that are no UTF-8, as `os.fsdecode` gives them.
    """
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


class OneLineFormatter(logging.Formatter):
    """Formats each message as one line, whatever file names it holds; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the message with `escape_misleading` applied to it."""
        return escape_misleading(super().formatMessage(record))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write the messages of this process to standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def _misleads(character: str) -> bool:
    return (
        unicodedata.category(character) in ESCAPED_CATEGORIES
        or unicodedata.bidirectional(character) in ESCAPED_DIRECTIONS
        or character in DIRECTION_MARKS
    )
