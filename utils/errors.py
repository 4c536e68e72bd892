"""The one exception for what a user can mend, and the one place that turns it into a line and a status."""

import os
import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class UserError(Exception):
    """Something the user can mend: a missing file, a malformed one, an option that does not fit.

    Its text is one line that says what is wrong and what to do next.
    """


def run_command(command: Callable[[], object]) -> int:
    """Runs a script's command; what the user can mend becomes one `error:` line on standard error.

    Args:
        command: the script's work.

    Returns:
        The exit status: 0, 2 after a UserError, 130 after Ctrl-C, 141 when the reader of standard output
        went away.
    """
    try:
        command()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit; without this it would complain of the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return 0
