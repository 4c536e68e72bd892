"""Reading a pickle from elsewhere that should hold plain values: numbers, text, lists, numpy's arrays."""

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar

NUMBERS = {
    **{"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "f2": "e", "f4": "f", "f8": "d"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
}
"""The types that an array may have: numpy's name to struct's."""

BYTE_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}


class RefusedError(Exception):
    """A pickle asks for something that is no plain value; the text names it."""


def load_plain(pickled: bytes) -> object:
    """Reads a pickle without running anything that it names, be it of numpy.

    Args:
        pickled: by Python 2 or 3, in any protocol.

    Returns:
        What was pickled, with numpy's scalars as Python's numbers and its arrays, of one dimension, as lists.

    Raises:
        RefusedError: it names a function or a class, or holds arrays of anything but numbers.
        ValueError: it is damaged or no pickle.
    """
    try:
        return _PlainUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    except RefusedError:
        raise
    except Exception as error:  # there is no end to the ways in which a damaged one fails
        raise ValueError(f"{type(error).__name__}: {error}") from error


class _DType:
    """Stands for numpy's type of an array: a name, and a state that tells the order of bytes."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in NUMBERS:
            raise RefusedError(f"an array of type {name!a}")
        self._name, self._order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = BYTE_ORDERS[state[1]]

    def numbers(self, data: bytes | str) -> list[float]:
        """Reads an array's numbers from its bytes, which are a str from Python 2."""
        if isinstance(data, str):
            data = data.encode("latin1")
        return [number for (number,) in struct.iter_unpack(self._order + NUMBERS[self._name], data)]


class _Array(list):
    """Stands for numpy's array, first made without its numbers."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, data = state
        self[:] = _array(data, dtype, shape)


def _array(data: bytes | str, dtype: _DType, shape: tuple[int, ...], *_: object) -> list[float]:
    numbers = dtype.numbers(data)
    if shape != (len(numbers),):
        raise ValueError(f"{len(numbers)} numbers for an array of shape {shape}")
    return numbers


def _scalar(dtype: _DType, data: bytes | str) -> float:
    (number,) = dtype.numbers(data)
    return number


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """Undoes what Python 3 writes bytes as in Python 2's protocols."""
    if encoding != "latin1":
        raise RefusedError(f"the encoding {encoding!a}")
    return text.encode("latin1")


class _Callable:
    """What a pickle may call and, other than a function or a class, not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a change to a function")


NAMED: dict[str, _Callable] = {
    "numpy.dtype": _Callable(_DType),
    "numpy.ndarray": _Callable(lambda *_: _Array()),
    "numpy.core.multiarray._reconstruct": _Callable(lambda *_: _Array()),
    "numpy.core.multiarray.scalar": _Callable(_scalar),
    "numpy.core.numeric._frombuffer": _Callable(_array),
    "_codecs.encode": _Callable(_bytes),
    "__builtin__.bytes": _Callable(_bytes),
}
"""What stands for the names that are in pickles of plain values."""


class _PlainUnpickler(pickle._Unpickler):
    """The one written in Python: the one in C reserves whatever memory a pickle's memo is said to need."""

    def find_class(self, module: str, name: str) -> _Callable:
        """Finds what stands for a name; numpy 2 has other names for the same."""
        known = NAMED.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")
        if known is None:
            raise RefusedError(f"{module}.{name}")
        return known

    def persistent_load(self, pid: object) -> None:
        """Refuses what lies outside the pickle."""
        raise RefusedError(f"the object {pid!a}, which is not in it")

    def load_bytearray8(self) -> None:
        """Reads an array's data; what this stands in for reserves what memory the data is said to need."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    # typeshed does not know the pure Python unpickler's inside.
    read: Callable[[int], bytes]
    append: Callable[[object], None]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
