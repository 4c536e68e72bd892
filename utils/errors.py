"""Errors that a user can fix."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Error that the user can fix: a missing or unreadable file, or an invalid option.

    The message is one line that says what is wrong and what to do.
    """


class BadFileError(UserError):
    """Error for a file whose contents are incomplete, of another format or unsafe."""


class UnreadableFileError(BadFileError):
    """Error for a file that the system cannot read, for example without permission."""


class LostProcessError(UserError):
    """Error for another process of the same torchrun that has ended or lost its connection."""


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Append advice to the user errors of a block.

    Raises:
        UserError: the block raised a UserError.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error
