"""The one exception for what a user can mend, and the one place that turns it into a line and a status."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from utils.text import shown

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class UserError(Exception):
    """Something the user can mend: a missing file, a malformed one, an option that does not fit.

    Its text is one line that says what is wrong and what to do next.
    """


class BadFileError(UserError):
    """A file is not what it should be: damaged, hostile, or something else altogether."""


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Adds what to do next to the user errors of a block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error


def run_command(command: Callable[[], object]) -> int:
    """Runs a script's command; what the user can mend becomes one `error:` line on standard error.

    Args:
        command: the script's work.

    Returns:
        The exit status: 0, 2 after a UserError or one of the operating system (a full disk, a folder that may
        not be read), 130 after Ctrl-C, 141 when the reader of standard output went away.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show is no failure
    try:
        command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_standard_output()
        return EXIT_BROKEN_PIPE
    except (UserError, OSError) as error:
        print(f"error: {shown(str(error).strip())}", file=sys.stderr)
        if isinstance(error, OSError):
            _give_up_standard_output()
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _give_up_standard_output() -> None:
    """Lets what is still to be printed vanish: Python flushes once more at exit and would complain again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
