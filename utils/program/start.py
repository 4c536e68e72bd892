"""Quiet interrupts, usable standard streams and one-line errors from a program's first moment on.

Importing this module sets them up. Each script does so first, and only when it is the program itself, because
the imports that follow take seconds.
"""

import os
import sys
from contextlib import suppress
from types import TracebackType

from utils.program.interrupts import install
from utils.program.standard_streams import open_standard_streams


def show_import_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Show an error that was raised outside `run_command`, while modules are imported, and end the program.

    Python itself would end it with status 1, whatever the error.
    """
    from utils.errors import UserError
    from utils.program.outside_errors import NO_MEMORY, NO_MEMORY_TO_IMPORT, outside_error
    from utils.program.run_command import show_failure

    # No option changes what the imports need. Libraries that ignore a failed allocation end in a SystemError.
    if outside_error(error) == NO_MEMORY or isinstance(error, SystemError):
        error = UserError(NO_MEMORY_TO_IMPORT)
    status = show_failure(error)
    with suppress(OSError, ValueError, AttributeError):  # standard output is closed
        sys.stdout.flush()
    os._exit(status)


install()
open_standard_streams()
sys.excepthook = show_import_error

import logging  # noqa: E402  only now that Ctrl-C is quiet: the import takes 10 ms

# Matplotlib tells users without a home folder of its temporary cache in five lines.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
