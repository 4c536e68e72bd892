"""Handlers of Ctrl-C: it ends the program at once, or raises KeyboardInterrupt during its work."""

# Only built-in modules and modules that Python has loaded already, since importing `signal` takes 20 ms.
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
    """Make Ctrl-C end the program at once until `raise_interrupts`, unless the program ignores Ctrl-C."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, exit_at_once)
    sys.unraisablehook = repeat_interrupt


def raise_interrupts() -> None:
    """Make Ctrl-C raise KeyboardInterrupt instead of ending the program at once."""
    if _signal.getsignal(_signal.SIGINT) is exit_at_once:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def end_at_interrupts() -> None:
    """Make Ctrl-C end the program at once again, after its work."""
    if sys.unraisablehook is repeat_interrupt:
        install()


def exit_at_once(signal_number: int, frame: "FrameType | None") -> None:
    """End the program at once: the handler of Ctrl-C during imports and after the work."""
    try:  # noqa: SIM105  importing contextlib takes time
        os.write(2, b"interrupted\n")
    except OSError:  # standard error is closed
        pass
    os._exit(EXIT_INTERRUPTED)


def repeat_interrupt(unraisable: "UnraisableHookArgs") -> None:
    """Interrupt the program again if Python would only print the interrupt, for example in a destructor.

    Other errors are printed.
    """
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(unraisable)
