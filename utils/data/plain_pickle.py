"""Safe reading of untrusted pickles of plain values: numbers, text, lists and NumPy arrays."""

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar

NUMBERS = {
    **{"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "f2": "e", "f4": "f", "f8": "d"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
}
"""Types of array elements: NumPy name to struct format."""

BYTE_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}


class RefusedError(Exception):
    """Raised for a pickle that names an object other than a plain value; the message says which."""


def load_plain(pickled: bytes) -> object:
    """Load a pickle of plain values without running any function or class that it names.

    Args:
        pickled: a pickle of Python 2 or 3, in any protocol.

    Returns:
        The pickled value, with NumPy scalars as Python numbers and one-dimensional NumPy arrays as lists.

    Raises:
        RefusedError: the pickle names another function or class, or holds arrays of other types than numbers.
        ValueError: it is not a valid pickle.
    """
    try:
        return _PlainUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    except RefusedError:
        raise
    except Exception as error:  # an invalid pickle can raise almost any exception
        raise ValueError(f"{type(error).__name__}: {error}") from error


class _DType:
    """A stand-in for numpy.dtype: a name, and a state with the byte order."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in NUMBERS:
            raise RefusedError(f"an array of type {name!a}")
        self._name, self._order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = BYTE_ORDERS[state[1]]

    def numbers(self, data: bytes | str) -> list[float]:
        """Return the numbers that the bytes of an array encode; Python 2 pickled them as a str."""
        if isinstance(data, str):
            data = data.encode("latin1")
        return [number for (number,) in struct.iter_unpack(self._order + NUMBERS[self._name], data)]


class _Array(list):
    """A stand-in for numpy.ndarray, which is created empty and filled by `__setstate__`."""

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
    """Return the bytes that Python 3 pickled as text in protocols 0 to 2."""
    if encoding != "latin1":
        raise RefusedError(f"the encoding {encoding!a}")
    return text.encode("latin1")


class _Callable:
    """A function that a pickle can call but, unlike a plain function or class, not modify."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a change to a function")


STAND_INS: dict[str, _Callable] = {
    "numpy.dtype": _Callable(_DType),
    "numpy.ndarray": _Callable(lambda *_: _Array()),
    "numpy.core.multiarray._reconstruct": _Callable(lambda *_: _Array()),
    "numpy.core.multiarray.scalar": _Callable(_scalar),
    "numpy.core.numeric._frombuffer": _Callable(_array),
    "_codecs.encode": _Callable(_bytes),
    "__builtin__.bytes": _Callable(_bytes),
}
"""Stand-ins for the functions and classes that pickles of plain values name."""


class _PlainUnpickler(pickle._Unpickler):
    """An unpickler that only calls stand-ins.

    It subclasses the Python version: the C version allocates as much memory as the memo of a pickle claims.
    """

    def find_class(self, module: str, name: str) -> _Callable:
        """Return the stand-in for a name; NumPy 2 renamed numpy.core to numpy._core."""
        stand_in = STAND_INS.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")
        if stand_in is None:
            raise RefusedError(f"{module}.{name}")
        return stand_in

    def persistent_load(self, pid: object) -> None:
        """Refuse objects outside the pickle."""
        raise RefusedError(f"the object {pid!a} outside the pickle")

    def load_bytearray8(self) -> None:
        """Read a bytearray; the overridden method allocates as much memory as the pickle claims."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    # typeshed does not declare these attributes of the Python unpickler.
    read: Callable[[int], bytes]
    append: Callable[[object], None]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
