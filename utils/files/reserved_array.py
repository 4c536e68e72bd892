"""NumPy files mapped into memory for writing, whose space on the disk is reserved first."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.files.writing import user_error_if_unwritable

CHUNK = 1 << 24
"""Bytes of zeros written at a time where space cannot be reserved by one call."""


def new_mapped_array(path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> np.memmap:
    """Make a file of zeros in NumPy's format and map it into memory for reading and writing.

    Without its space reserved, a full disk would end the process by SIGBUS when the array is written to.

    Args:
        path: the file, replaced if it exists.
        shape: of the array.
        dtype: its number type.

    Raises:
        UserError: the disk has no space for it; the file is then gone.
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
    """Add `count` zero bytes to a file of which nothing is buffered."""
    if count and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), file.tell(), count)
        return
    for offset in range(0, count, CHUNK):
        file.write(bytes(min(CHUNK, count - offset)))
