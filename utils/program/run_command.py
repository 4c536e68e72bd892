"""Execution of a script's command, with error messages and an exit status."""

import gc
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
"""Seconds that torchrun has to end this process after another process failed."""


def run_command(command: Callable[[], object]) -> int:
    """Run the command of a script, and print the error that ends it, if any.

    An error caused outside the program, such as an unreadable file, a full disk or too little memory, is
    printed as one `error:` line to standard error. A bug in the program is printed with its traceback and a
    line that asks for a report.

    Args:
        command: the function to run.

    Returns:
        The exit status: 0, 2 after an error caused outside the program, 1 after a bug, 130 after Ctrl-C, 141
        if the reader of standard output closed it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that a terminal cannot show
    interrupts.raise_interrupts()
    if not gc.isenabled():  # since `utils.program.start`
        gc.freeze()
        gc.enable()
    try:
        command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_standard_output()
        return EXIT_BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, LostProcessError):
            time.sleep(GRACE)  # torchrun ends this process sooner if it knows about the failure
        status = show_failure(error)
        if isinstance(error, OSError):
            _discard_standard_output()
        return status
    finally:
        interrupts.end_at_interrupts()
    return 0


def show_failure(error: BaseException) -> int:
    """Print the error that ends a program to standard error, and return the exit status."""
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):
        _print_error("interrupted")
        return EXIT_INTERRUPTED
    line = str(error).strip() if isinstance(error, UserError) else outside_error(error)
    if line is not None:
        _print_error(f"error: {escape_misleading(line)}")
        return EXIT_USER_ERROR
    _print_error("".join(traceback.format_exception(error)).rstrip("\n"))
    _print_error(bug_line())
    return EXIT_BUG


def _print_error(text: str) -> None:
    if sys.stderr is not None:  # `print` with file=None would print to standard output
        print(text, file=sys.stderr, flush=True)


def _discard_standard_output() -> None:
    """Discard unwritten output, since Python flushes it at exit and would print the error again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
