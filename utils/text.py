"""Text of messages: escaped file names, lists of names, shortened values, and digests of names."""

import hashlib
import logging
import sys
import unicodedata
from collections.abc import Collection, Iterable

ESCAPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, line ends, and surrogates, which stand for undecodable bytes."""

ESCAPED_DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Unicode bidirectional classes of characters that change the display order of text."""

DIRECTION_MARKS = frozenset("\u200e\u200f\u061c")
"""Invisible characters that change the display order of adjacent text."""

LONGEST_VALUE = 80
"""Largest number of characters of a value that messages show in full."""


def escape_misleading(text: str) -> str:
    """Return the text as one line, with backslash escapes for misleading characters.

    Misleading characters are control characters including line ends, undecodable bytes of file names, and
    characters that change the display order, which can make one name look like another.
    """
    return "".join(
        character.encode("unicode_escape").decode() if _misleads(character) else character
        for character in text
    )


def has_control_characters(text: str) -> bool:
    """Return whether a text has control characters, line ends or undecodable bytes of file names."""
    return any(unicodedata.category(character) in ESCAPED_CATEGORIES for character in text)


def first_names(names: Collection[str]) -> str:
    """Return the first three names in sorted order as text, followed by `...` if there are more."""
    first = sorted(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > len(first) else "")


def shorten(value: object) -> str:
    """Return the repr of a value for a message, without its middle part if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to format integers of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= LONGEST_VALUE else f"{text[:30]}...{text[-10:]}"


def digest_of_names(names: Iterable[str]) -> str:
    """Return the SHA-256 digest, in hexadecimal, of file names in the given order.

    Names may contain surrogate escapes, as returned by `os.fsdecode`.
    """
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


class OneLineFormatter(logging.Formatter):
    """Formatter that writes each message as one line. Tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the message with `escape_misleading` applied to it."""
        return escape_misleading(super().formatMessage(record))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Log the messages of this process to standard error, one line per message."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def _misleads(character: str) -> bool:
    return (
        has_control_characters(character)
        or unicodedata.bidirectional(character) in ESCAPED_DIRECTIONS
        or character in DIRECTION_MARKS
    )
