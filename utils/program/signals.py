"""Handlers of SIGTERM and Ctrl-C with which a program saves its work before it stops."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from utils.errors import LostProcessError

STOPPING = (signal.SIGTERM, signal.SIGINT)

PARENT_CHECK = 1.0
"""Number of seconds between two checks of a worker that its parent is running."""


class StopWish:
    """Number of the signal that asked the program to stop; 0 if there was none."""

    signal_number = 0

    def exit_status(self) -> int:
        """Return the exit status that means an end by this signal."""
        return 128 + self.signal_number


def leave_signals_to_parent(worker: int = 0) -> None:
    """Make a worker process ignore Ctrl-C and SIGTERM, until its parent sends SIGTERM or ends.

    Terminals, torchrun and schedulers send these signals to all processes of a program. The parent handles
    them, and needs its workers until it ends.

    Args:
        worker: number of the worker, which torch passes; unused.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent ends or sends SIGTERM.

    Args:
        parent: process number of the parent.
    """
    while os.getppid() == parent:
        received = signal.sigtimedwait({signal.SIGTERM}, PARENT_CHECK)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)  # torch would report a failure of the worker for any other status


@contextmanager
def stopping_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM in a block that starts processes.

    The processes inherit the mask of signals, and keep it until they call `leave_signals_to_parent`. Signals
    that arrive during the block reach this process after it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """Record Ctrl-C and SIGTERM during the block, instead of ending the program.

    Raises:
        SystemExit: another process of torchrun ended after a signal was recorded.
    """
    wish = StopWish()

    def record(signal_number: int, frame: FrameType | None) -> None:
        wish.signal_number = signal_number

    before = {number: signal.signal(number, record) for number in STOPPING}
    try:
        yield wish
    except LostProcessError as error:
        if wish.signal_number:  # torchrun ends all processes when one has failed
            raise SystemExit(wish.exit_status()) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
