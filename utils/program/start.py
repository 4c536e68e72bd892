"""Set-up of interrupts, standard streams, error messages and garbage collection at the start of a program.

Importing this module does the set-up. A script that runs as a program imports it before any other module,
since the other imports take seconds.
"""

import atexit
import gc
import os
import sys
from contextlib import suppress
from types import TracebackType

from utils.program.interrupts import install
from utils.program.standard_streams import open_standard_streams


def show_import_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an error that was raised during imports, and end the program with the exit status for it.

    Without this hook, Python ends the program with status 1 for every error.
    """
    from utils.errors import UserError
    from utils.program.outside_errors import NO_MEMORY, NO_MEMORY_TO_IMPORT, outside_error
    from utils.program.run_command import show_failure

    # The message names no options, since they do not change the memory that imports need. Libraries that
    # ignore a failed allocation raise a SystemError.
    if outside_error(error) == NO_MEMORY or isinstance(error, SystemError):
        error = UserError(NO_MEMORY_TO_IMPORT)
    status = show_failure(error)
    with suppress(OSError, ValueError, AttributeError):  # standard output is closed
        sys.stdout.flush()
    os._exit(status)


# Collections find no garbage during imports and take a tenth of their time. `run_command` enables them again.
gc.disable()
atexit.register(gc.freeze)  # else Python looks for garbage in all modules of torch before it exits, for 0.2 s

install()
open_standard_streams()
sys.excepthook = show_import_error

import logging  # noqa: E402  after the set-up, since the import takes 10 ms

# Matplotlib logs five lines about its cache if the user has no home folder.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
