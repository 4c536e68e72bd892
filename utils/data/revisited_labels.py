"""Reading and writing of the labels of ROxford and RParis.

They are published as a pickle, which could run any code, and are kept as JSON.
"""

import json
import math
import re
from pathlib import Path
from typing import Any, TypedDict

from utils.data.plain_pickle import RefusedError, load_plain
from utils.errors import BadFileError
from utils.files.reading import read_bytes, read_text
from utils.text import shorten

UNSAFE_NAME = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]|^\.{,2}\Z")


class Query(TypedDict):
    """The box of a query, and the indices in `imlist` of its easy, hard and junk images."""

    bbx: list[float]
    easy: list[int]
    hard: list[int]
    junk: list[int]


class Labels(TypedDict):
    """The image names of the database and of the queries, and the labels of each query."""

    imlist: list[str]
    qimlist: list[str]
    gnd: list[Query]


def read_pickled_labels(path: Path) -> Labels:
    """Read labels as they are published, without running any function that the pickle names.

    Args:
        path: a pickle of Python 2 or 3, of lists or NumPy arrays.

    Raises:
        UserError: the file is missing or unreadable, holds other objects than plain values, or is not valid.
    """
    try:
        labels = load_plain(read_bytes(path))
    except FileNotFoundError as error:
        raise BadFileError(f"{path} is missing") from error
    except RefusedError as error:
        raise BadFileError(f"{path} is refused: labels are plain values, but it asks for {error}") from error
    except ValueError as error:
        raise BadFileError(f"{path} is not a valid pickle: download it again ({error})") from error
    return _checked(path, labels)


def read_labels(path: Path) -> Labels:
    """Read labels that `as_json` wrote.

    Raises:
        UserError: the file is missing or unreadable, or is not valid.
    """
    try:
        labels = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path} is not valid JSON: {error}") from error
    return _checked(path, labels)


def as_json(labels: Labels) -> bytes:
    """Return labels as the bytes of a JSON file; equal labels give equal bytes."""
    return json.dumps(labels, sort_keys=True, allow_nan=False).encode() + b"\n"


def _checked(path: Path, labels: object) -> Labels:
    try:
        imlist, qimlist, gnd = _values(labels, "imlist", "qimlist", "gnd")
        images, names, queries = _names(imlist), _names(qimlist), _items(gnd)
        if len(names) != len(queries):
            raise ValueError(f"{len(names)} query names, but labels of {len(queries)} queries")
        return {"imlist": images, "qimlist": names, "gnd": [_query(query, len(images)) for query in queries]}
    except (ValueError, OverflowError) as error:
        raise BadFileError(f"{path} does not hold the labels of ROxford or RParis: {error}") from error


def _query(query: object, images: int) -> Query:
    box, *levels = _values(query, "bbx", "easy", "hard", "junk")
    sides = _items(box)
    if len(sides) != 4 or not all(type(side) in (int, float) and math.isfinite(side) for side in sides):
        raise ValueError("a box is not four finite numbers")
    easy, hard, junk = (_indices(level, images) for level in levels)
    return {"bbx": [float(side) for side in sides], "easy": easy, "hard": hard, "junk": junk}


def _values(value: object, *keys: str) -> list[object]:
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        raise ValueError(f"the keys {', '.join(keys)} are missing")
    return [value[key] for key in keys]


def _items(value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list, got {type(value).__name__}")
    return list(value)


def _names(value: object) -> list[str]:
    for name in (names := _items(value)):
        if not isinstance(name, str) or UNSAFE_NAME.search(name):
            raise ValueError(f"expected an image name, got {_shown(name)}")
    return names


def _indices(value: object, images: int) -> list[int]:
    for index in (indices := _items(value)):
        if type(index) is not int or not 0 <= index < images:
            raise ValueError(f"expected an image index below {images}, got {_shown(index)}")
    return indices


def _shown(value: object) -> str:
    """Return a value as text for a message; only the type of lists, which can be nested very deeply."""
    return shorten(value) if isinstance(value, str | int | float) else type(value).__name__
