"""The labels of ROxford and RParis: published as a pickle, which could run anything, and kept as JSON."""

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
    """A query's box, and the places of its images in the list of all, by how hard they are to find."""

    bbx: list[float]
    easy: list[int]
    hard: list[int]
    junk: list[int]


class Labels(TypedDict):
    """The names of the images and of the queries, and the labels of each query."""

    imlist: list[str]
    qimlist: list[str]
    gnd: list[Query]


def read_pickled_labels(path: Path) -> Labels:
    """Reads labels as they are published; nothing that the pickle names is run, nor anything of numpy.

    Args:
        path: a pickle from Python 2 or 3, of lists or of numpy's arrays.

    Raises:
        UserError: it cannot be read, is damaged, asks for more than plain values, or does not hold labels.
    """
    try:
        labels = load_plain(read_bytes(path))
    except FileNotFoundError as error:
        raise BadFileError(f"{path} is missing") from error
    except RefusedError as error:
        raise BadFileError(f"{path} is refused: labels are plain values, and it asks for {error}") from error
    except ValueError as error:
        raise BadFileError(f"{path} is no pickle, or damaged: download it again ({error})") from error
    return _checked(path, labels)


def read_labels(path: Path) -> Labels:
    """Reads labels that `as_json` wrote.

    Raises:
        UserError: the file cannot be read, is no JSON, or does not hold labels.
    """
    try:
        labels = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path} is no JSON: {error}") from error
    return _checked(path, labels)


def as_json(labels: Labels) -> bytes:
    """The labels as a file's contents: equal for equal labels."""
    return json.dumps(labels, sort_keys=True, allow_nan=False).encode() + b"\n"


def _checked(path: Path, labels: object) -> Labels:
    try:
        imlist, qimlist, gnd = _values(labels, "imlist", "qimlist", "gnd")
        images, names, queries = _names(imlist), _names(qimlist), _items(gnd)
        if len(names) != len(queries):
            raise ValueError(f"{len(names)} names of queries, but labels of {len(queries)}")
        return {"imlist": images, "qimlist": names, "gnd": [_query(query, len(images)) for query in queries]}
    except (ValueError, OverflowError) as error:
        raise BadFileError(f"{path} does not hold the labels of ROxford or RParis: {error}") from error


def _query(query: object, images: int) -> Query:
    box, *levels = _values(query, "bbx", "easy", "hard", "junk")
    sides = _items(box)
    if len(sides) != 4 or not all(type(side) in (int, float) and math.isfinite(side) for side in sides):
        raise ValueError("a box that is not four finite numbers")
    easy, hard, junk = (_places(level, images) for level in levels)
    return {"bbx": [float(side) for side in sides], "easy": easy, "hard": hard, "junk": junk}


def _values(value: object, *keys: str) -> list[object]:
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        raise ValueError(f"what should have the entries {', '.join(keys)} has not")
    return [value[key] for key in keys]


def _items(value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{type(value).__name__} where a list should be")
    return list(value)


def _names(value: object) -> list[str]:
    for name in (names := _items(value)):
        if not isinstance(name, str) or UNSAFE_NAME.search(name):
            raise ValueError(f"{_told(name)} where an image's name should be")
    return names


def _places(value: object, images: int) -> list[int]:
    for place in (places := _items(value)):
        if type(place) is not int or not 0 <= place < images:
            raise ValueError(f"{_told(place)} where one of {images} images' places should be")
    return places


def _told(value: object) -> str:
    """Return a value for a message; of lists, which can hold each other many times, only the type."""
    return shorten(value) if isinstance(value, str | int | float) else type(value).__name__
