"""JSON files, and checks of the contents of a file, such as parsed JSON, against a declared type."""

import json
import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints, is_typeddict

from utils.errors import BadFileError
from utils.files.reading import read_bytes
from utils.files.writing import replace_file
from utils.text import shorten

Setting = str | int | float | bool | None | list[str] | list[int] | list[float]
"""Value of a saved setting."""

LARGEST_INTEGER = 2**63 - 1

Record = TypeVar("Record")


def read_json(path: Path, schema: type[Record]) -> Record:
    """Read a JSON file and check it against a type.

    Args:
        path: the file.
        schema: see `check_type`.

    Raises:
        FileNotFoundError: the file does not exist.
        UnreadableFileError: the system cannot read the file.
        BadFileError: it is not a regular file, is not JSON in UTF-8, or does not have the type `schema`; or
            it has a duplicate key, a number that is not finite or an integer of more than 64 bits.
    """
    return parse_json(path, read_bytes(path), schema)


def write_json(path: Path, contents: Mapping[str, object]) -> None:
    """Write a JSON file for people to read: indented, with a line break at its end.

    Raises:
        UserError: the file cannot be written.
    """
    with replace_file(path) as file:
        file.write(json.dumps(contents, indent=2).encode() + b"\n")


def parse_json(path: Path, data: bytes | str, schema: type[Record]) -> Record:
    """Parse the JSON in a file, and check it against a type; see `read_json`.

    Args:
        path: the file, for errors.
        data: contents of the file.
        schema: see `check_type`.

    Raises:
        BadFileError: as for `read_json`.
    """
    try:
        value = json.loads(
            data.decode("utf-8-sig") if isinstance(data, bytes) else data,
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path} is unreadable: it is not JSON in UTF-8") from error
    except RecursionError as error:
        raise BadFileError(f"{path} is unreadable: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise BadFileError(f"{path} is unreadable: it is not JSON ({error})") from error
    except ValueError as error:
        raise BadFileError(f"{path} is unreadable: {error}") from error
    return check_record(path, value, schema)


def check_record(path: Path, value: object, schema: type[Record]) -> Record:
    """Return a value read from a file, after checking it against a type.

    Args:
        path: the file, for errors.
        value: the value.
        schema: see `check_type`.

    Raises:
        BadFileError: the value does not have the type.
    """
    try:
        check_type(value, schema)
    except ValueError as error:
        raise BadFileError(f"{path} is unreadable: {error}") from error
    return cast(Record, value)


def check_type(value: object, schema: Any, name: str = "it") -> None:  # noqa: ANN401  any type
    """Check a value recursively against a type.

    Args:
        value: the value, made of dicts, lists and plain values.
        schema: a TypedDict or a dataclass, both for a dict with their fields as keys, `list[...]`,
            `dict[str, ...]`, a Literal, a union or a class. A TypedDict allows further keys. `float` allows
            integers, and `int` does not allow bool.
        name: name of the value in the error.

    Raises:
        ValueError: the value does not have the type.
    """
    if is_typeddict(schema) or is_dataclass(schema):
        _check_fields(value, schema, name)
    elif isinstance(schema, UnionType):
        if not any(_fits(value, kind) for kind in get_args(schema)):
            raise _misfit(value, schema, name)
    elif get_origin(schema) is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in get_args(schema)):
            raise _misfit(value, schema, name)
    elif get_origin(schema) is list:
        check_type(value, list, name)
        for item in cast(list[object], value):
            check_type(item, get_args(schema)[0], f"an item of {name}")
    elif get_origin(schema) is dict:
        check_type(value, dict, name)
        for key, item in cast(dict[object, object], value).items():
            check_type(key, get_args(schema)[0], f"a key of {name}")
            check_type(item, get_args(schema)[1], f"{shorten(key)} of {name}")
    elif schema in (int, float):
        if type(value) is not int and not (schema is float and type(value) is float):
            raise _misfit(value, schema, name)
    elif not isinstance(value, type(None) if schema is None else schema):
        raise _misfit(value, schema, name)


def _check_fields(value: object, schema: Any, name: str) -> None:  # noqa: ANN401
    check_type(value, dict, name)
    record = cast(dict[object, object], value)
    fields = get_type_hints(schema)
    if is_dataclass(schema) and (unknown := record.keys() - fields.keys()):
        raise ValueError(f"{name} has an unknown key {shorten(min(unknown, key=repr))}")
    for key in getattr(schema, "__required_keys__", fields.keys()) - record.keys():
        raise ValueError(f"{name} has no {key!r}")
    for key in fields.keys() & record.keys():
        check_type(record[key], fields[key], f"{key!r} of {name}")


def _fits(value: object, schema: object) -> bool:
    try:
        check_type(value, schema)
    except ValueError:
        return False
    return True


def _misfit(value: object, schema: object, name: str) -> ValueError:
    expected = schema.__name__ if isinstance(schema, type) and not get_args(schema) else str(schema)
    actual = f"{type(value).__name__}" if isinstance(value, dict | list) else shorten(value)
    return ValueError(f"{name} is {actual} where {expected.removeprefix('typing.')} is expected")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("it has a key twice")
    return record


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {shorten(text)}, which is not a finite number")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) > LARGEST_INTEGER:
        raise ValueError("it holds an integer of more than 64 bits")
    return number
