"""Checked reading of NumPy files. Their headers are compared with their sizes before memory is allocated."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

import numpy as np

from utils.errors import BadFileError, UnreadableFileError
from utils.files.reading import open_checked

NumberType = type[np.generic]
Shape = tuple[int | None, ...]
"""An expected shape; None stands for any length."""

LONGEST_HEADER = 12_000
"""Largest number of bytes of a header."""


class _Header(NamedTuple):
    offset: int
    """Number of bytes before the values."""
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def read_array(path: Path, types: Sequence[NumberType], shape: Shape | None = None) -> np.ndarray:
    """Read a .npy file into memory, without unpickling.

    Args:
        path: the file.
        types: allowed NumPy types of the values, also abstract types such as `np.floating`.
        shape: the expected shape; any shape if not given.

    Returns:
        The array, writable, in native byte order and C order.

    Raises:
        FileNotFoundError: the file does not exist.
        UnreadableFileError: the system cannot read the file.
        BadFileError: it is not a regular file, not a .npy file of the size given by its header, or holds
            values of another type or shape.
    """
    with open_checked(path) as file:
        try:
            return _read(cast(io.BufferedIOBase, file), _size(file), types, shape)
        except ValueError as error:
            raise BadFileError(f"{path} is unreadable: {error}") from error


def map_array(
    path: Path, types: Sequence[NumberType], shape: Shape, mode: Literal["r", "r+", "c"] = "r"
) -> np.memmap:
    """Map a .npy file into memory; see `read_array`.

    Args:
        path: the file.
        types: allowed NumPy types of the values.
        shape: the expected shape.
        mode: "r" to read, "r+" to change the file, "c" to change only the array in memory.

    Raises:
        FileNotFoundError: the file does not exist.
        UnreadableFileError: the system cannot read the file.
        BadFileError: as for `read_array`, or the array is not in native byte order and C order.
    """
    with open_checked(path) as file:
        try:
            header = _header(file.read(LONGEST_HEADER), _size(file), types, shape)
            if header.fortran_order or not header.dtype.isnative:
                raise ValueError("its values are not in native byte order and C order")
        except ValueError as error:
            raise BadFileError(f"{path} is unreadable: {error}") from error
        try:
            source = path if mode == "r+" else file
            return np.memmap(source, header.dtype, mode, header.offset, header.shape)
        except OSError as error:
            raise UnreadableFileError(f"cannot read {path}: {error.strerror or error}") from error


def read_arrays(
    path: Path, expected: Mapping[str, tuple[Sequence[NumberType], Shape]]
) -> dict[str, np.ndarray]:
    """Read arrays of a .npz file by name; see `read_array`.

    Args:
        path: the file.
        expected: allowed types and expected shape by name of array.

    Raises:
        FileNotFoundError: the file does not exist.
        UnreadableFileError: the system cannot read the file.
        BadFileError: it is not a .npz file, or an array is missing or has another type or shape.
    """
    arrays = {}
    with open_checked(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for name, (types, shape) in expected.items():
                    member = archive.getinfo(f"{name}.npy")
                    with archive.open(member) as values:
                        arrays[name] = _read(cast(io.BufferedIOBase, values), member.file_size, types, shape)
        except KeyError as error:
            raise BadFileError(f"{path} is unreadable: it has no array {name!r}") from error
        except MemoryError:
            raise
        except Exception as error:  # the zip reader raises any exception on an unreadable archive
            raise BadFileError(f"{path} is unreadable: {error or type(error).__name__}") from error
    return arrays


def _read(
    file: io.BufferedIOBase,
    size: int,
    types: Sequence[NumberType],
    shape: Shape | None,
) -> np.ndarray:
    head = file.read(LONGEST_HEADER)
    header = _header(head, size, types, shape)
    values = bytearray(size - header.offset)
    known = head[header.offset :]
    values[: len(known)] = known
    rest, reached = memoryview(values), len(known)
    while reached < len(values):
        count = file.readinto(rest[reached:])
        if not count:
            raise ValueError(f"it ends after {header.offset + reached} of {size} bytes")
        reached += count
    array = np.frombuffer(values, header.dtype).reshape(
        header.shape, order="F" if header.fortran_order else "C"
    )
    return np.ascontiguousarray(array, header.dtype.newbyteorder("=")).reshape(header.shape)


def _header(head: bytes, size: int, types: Sequence[NumberType], shape: Shape | None) -> _Header:
    """Parse the header of a .npy file, and check it against the expected type, shape and size.

    Raises:
        ValueError: there is no header, or the check fails.
    """
    beginning = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(beginning)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        actual, fortran_order, dtype = reader[version](beginning)
    except Exception as error:  # NumPy's parser raises any exception on an unreadable header
        raise ValueError("it is no complete .npy file") from error
    if not any(np.issubdtype(dtype, kind) for kind in types):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"its values are of type {dtype}, expected {wanted}")
    if not all(type(side) is int and side >= 0 for side in actual):
        raise ValueError(f"its shape is {actual}")
    if shape is not None and not _fits(actual, shape):
        wanted = " x ".join("n" if side is None else str(side) for side in shape)
        raise ValueError(f"its shape is {' x '.join(map(str, actual))}, expected {wanted}")
    expected_size = beginning.tell() + prod(actual) * dtype.itemsize
    if expected_size != size:
        raise ValueError(f"it has {size} bytes but its header says {expected_size}")
    return _Header(beginning.tell(), actual, fortran_order, dtype)


def _fits(actual: tuple[int, ...], shape: Shape) -> bool:
    return len(actual) == len(shape) and all(
        wanted in (None, side) for side, wanted in zip(actual, shape, strict=True)
    )


def _size(file: BinaryIO) -> int:
    position = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(position)
    return size
