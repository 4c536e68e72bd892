"""NumPy files that are mapped into memory for writing after their disk space is reserved."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.files.writing import user_error_if_unwritable

CHUNK = 1 << 24
"""Number of zero bytes written at a time on systems that cannot reserve space by one call."""


def new_mapped_array(path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> np.memmap:
    """Create a file of zeros in NumPy's format and map it into memory for reading and writing.

    The disk space is reserved first. Otherwise, writing to the array on a full disk would end the process
    with SIGBUS.

    Args:
        path: the file, replaced if it exists.
        shape: shape of the array.
        dtype: number type of the array.

    Raises:
        UserError: the disk has no space for the file, which is then removed.
    """
    with user_error_if_unwritable(path):
        try:
            with path.open("wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
                file.flush()
                _reserve(file, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return np.load(path, mmap_mode="r+", allow_pickle=False)


def _reserve(file: BinaryIO, count: int) -> None:
    """Append `count` zero bytes to a file whose buffer is flushed."""
    if count and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), file.tell(), count)
        return
    for offset in range(0, count, CHUNK):
        file.write(bytes(min(CHUNK, count - offset)))
