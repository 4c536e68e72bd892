"""The end of a program: its exit status, and its errors as messages."""

import io
import os
import sys
import time
import traceback
from collections.abc import Callable

from utils.errors import LostProcessError, UserError
from utils.program import interrupts
from utils.program.bug_report import bug_line
from utils.program.interrupts import EXIT_INTERRUPTED
from utils.program.outside_errors import causes, outside_error
from utils.text import escape_misleading

EXIT_BUG = 1
EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141

GRACE = 5.0
"""Seconds in which torchrun ends the other processes of one that failed."""


def run_command(command: Callable[[], object]) -> int:
    """Run a script's command and show an error that ends it.

    A cause outside the program, such as an unreadable file, a full disk or too little memory, becomes one
    `error:` line on standard error. A bug of the program keeps its traceback, and a line asks for a report.

    Args:
        command: the script's work.

    Returns:
        The exit status: 0, 2 after an error from outside, 1 after a bug, 130 after Ctrl-C, 141 when the
        reader of standard output has gone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show is no failure
    interrupts.raise_interrupts()
    try:
        command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_standard_output()
        return EXIT_BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, LostProcessError):
            time.sleep(GRACE)  # torchrun ends this process sooner where it knows of the other's end
        status = show_failure(error)
        if isinstance(error, OSError):
            _give_up_standard_output()
        return status
    finally:
        interrupts.end_at_interrupts()
    return 0


def show_failure(error: BaseException) -> int:
    """Show the error that ends a program on standard error, and return the exit status."""
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):
        _tell("interrupted")
        return EXIT_INTERRUPTED
    line = str(error).strip() if isinstance(error, UserError) else outside_error(error)
    if line is not None:
        _tell(f"error: {escape_misleading(line)}")
        return EXIT_USER_ERROR
    _tell("".join(traceback.format_exception(error)).rstrip("\n"))
    _tell(bug_line())
    return EXIT_BUG


def _tell(text: str) -> None:
    if sys.stderr is not None:  # print would use standard output instead
        print(text, file=sys.stderr, flush=True)


def _give_up_standard_output() -> None:
    """Lets what is still to be printed vanish: Python flushes once more at exit and would complain again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
