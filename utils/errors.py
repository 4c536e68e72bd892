"""Errors that a user can fix."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can mend: a missing file, a malformed one, an option that does not fit.

    Its text is one line that says what is wrong and what to do next.
    """


class BadFileError(UserError):
    """A file is not what it should be: damaged, hostile, or something else altogether."""


class UnreadableFileError(BadFileError):
    """A file cannot be read, as for want of permission; it may be what it should be."""


class LostProcessError(UserError):
    """Another process of the same torchrun has ended, or its connection has."""


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Adds what to do next to the user errors of a block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error
