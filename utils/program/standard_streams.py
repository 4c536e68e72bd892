"""Replacement of closed standard streams, and a standard error that ignores write errors."""

import io
import os
import sys
from contextlib import suppress


class MessageStream(io.TextIOWrapper):
    """Standard error that ignores errors when it is written to."""

    def write(self, text: str) -> int:
        """Write the text if possible, and return its length."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream if possible."""
        with suppress(OSError):
            super().flush()


def open_standard_streams() -> None:
    """Replace closed standard streams with the null device, so that no other file gets their descriptors."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
            mode = "w" if descriptor else "r"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    stream = sys.stderr
    if isinstance(stream, io.TextIOWrapper):
        encoding = stream.encoding
        sys.stderr = MessageStream(stream.detach(), encoding, "backslashreplace", line_buffering=True)
