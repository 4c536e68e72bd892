"""Ctrl-C: a program that ends at once, work that ends by KeyboardInterrupt, processes that ignore it."""

# Built-in modules and those that Python has loaded already: importing `signal` takes 20 ms.
import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import _thread
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType

EXIT_INTERRUPTED = 130


def install() -> None:
    """Let Ctrl-C end the program at once until `raise_interrupts`, unless it ignores Ctrl-C."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, exit_at_once)
    sys.unraisablehook = repeat_interrupt


def raise_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt where it would end the program at once."""
    if _signal.getsignal(_signal.SIGINT) is exit_at_once:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def end_at_interrupts() -> None:
    """Let Ctrl-C end a program at once again, as its work is done."""
    if sys.unraisablehook is repeat_interrupt:
        install()


def exit_at_once(signal_number: int, frame: "FrameType | None") -> None:
    """End the program where nothing has to be finished: during imports and after its work."""
    try:  # noqa: SIM105  importing contextlib takes time
        os.write(2, b"interrupted\n")
    except OSError:  # standard error is closed
        pass
    os._exit(EXIT_INTERRUPTED)


def repeat_interrupt(unraisable: "UnraisableHookArgs") -> None:
    """Repeat an interrupt that Python would only print, as in a destructor; print other errors."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(unraisable)
