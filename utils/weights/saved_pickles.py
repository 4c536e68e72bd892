"""Bounds on the strings in a file of torch.save, checked before PyTorch unpickles the file."""

import io
import os
import pickletools
import zipfile
from typing import BinaryIO

from utils.errors import BadFileError

LONGEST_STRING = 10_000
"""Largest allowed number of bytes of a string. Parameter names and file paths are shorter."""

LEGACY_PICKLES = 5
"""Number of pickles in a file of 2018: magic number, protocol, system, tensors, keys of the storages."""


class BoundedReader(io.BufferedReader):
    """Buffered reader that never reserves more memory than the size of its file.

    An unreadable file can make an unpickler read gigabytes at once, for which `io.BufferedReader` reserves
    memory first.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)  # type: ignore[arg-type]  # a buffered file reads as a raw one does
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes, or to the end."""
        return super().read(size if size is None or size < 0 else min(size, self._size))


def check_strings(file: BinaryIO) -> None:
    """Check that no pickle in a file holds a string longer than `LONGEST_STRING`.

    PyTorch quotes such strings in its error messages and searches these in time quadratic in their length.
    Files that are neither an archive nor a pickle pass the check, since PyTorch refuses them at once.

    Args:
        file: the file, at its beginning; the check returns to the beginning.

    Raises:
        BadFileError: a string is too long.
    """
    try:
        if file.read(4) == b"PK\3\4":
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        _check_pickle(archive.read(name))
        else:
            file.seek(0)
            for _ in range(LEGACY_PICKLES):
                _check_pickle(file)
    except (ValueError, EOFError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        pass  # unreadable: PyTorch reports it
    finally:
        file.seek(0)


def _check_pickle(pickled: bytes | BinaryIO) -> None:
    for _, argument, position in pickletools.genops(pickled):
        if isinstance(argument, (str, bytes)) and len(argument) > LONGEST_STRING:
            raise BadFileError(f"a string of {len(argument):,} characters at byte {position} of its pickle")
