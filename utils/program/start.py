"""Quiet interrupts, usable standard streams and one-line errors from a program's first moment on.

Importing this module sets them up. Each script does so first, and only when it is the program itself, because
the imports that follow take seconds.
"""

import sys
from types import TracebackType

from utils.program.interrupts import install
from utils.program.standard_streams import open_standard_streams


def show_import_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Show an error that was raised outside `run_command`, while modules are imported."""
    from utils.errors import show_failure

    show_failure(error)


install()
open_standard_streams()
sys.excepthook = show_import_error
