"""SIGTERM and Ctrl-C as a wish to stop at the next good place, so that what was done can be saved first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from utils.errors import LostProcessError

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopWish:
    """Which signal asked to stop; 0 as long as none did."""

    signal_number = 0

    def exit_status(self) -> int:
        """The status that tells a shell of the signal."""
        return 128 + self.signal_number


def ignore_interrupts(worker: int = 0) -> None:
    """Leaves Ctrl-C, which a terminal sends to all processes, to the one that waits for this worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C, which a terminal sends to all, does not reach even at their start.

    The signal's mask is inherited. A Ctrl-C meanwhile reaches this process at the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
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
