"""SIGTERM and Ctrl-C as a wish to stop at the next good place, so that what was done can be saved first."""

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
"""Seconds between two checks of a worker whether its parent is alive."""


class StopWish:
    """Which signal asked to stop; 0 as long as none did."""

    signal_number = 0

    def exit_status(self) -> int:
        """The status that tells a shell of the signal."""
        return 128 + self.signal_number


def leave_signals_to_parent(worker: int = 0) -> None:
    """Make a worker process ignore Ctrl-C and SIGTERM, unless its parent sends SIGTERM or ends.

    Terminals, torchrun and schedulers send these signals to all processes of a program. The parent decides
    what to do, and needs its workers until then.

    Args:
        worker: unused; torch passes the number of the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent, of this process number, ends or sends SIGTERM."""
    while os.getppid() == parent:
        received = signal.sigtimedwait({signal.SIGTERM}, PARENT_CHECK)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)  # torch takes any other status for a failure of the worker


@contextmanager
def stopping_blocked() -> Iterator[None]:
    """Start processes that neither Ctrl-C nor SIGTERM reaches before `leave_signals_to_parent`.

    The mask of signals is inherited. Signals that arrive meanwhile reach this process after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """Notes the signals that ask to stop, instead of dying of them, for as long as the block lasts."""
    wish = StopWish()

    def note(signal_number: int, frame: FrameType | None) -> None:
        wish.signal_number = signal_number

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield wish
    except LostProcessError as error:
        if wish.signal_number:  # torchrun ends all processes when one has failed
            raise SystemExit(wish.exit_status()) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
