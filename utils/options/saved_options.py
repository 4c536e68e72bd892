"""Conversion of options to JSON and back, for saved settings and --config."""

from collections.abc import Mapping
from pathlib import Path

from utils.errors import UserError
from utils.options.option import InvalidValueError
from utils.options.options_class import Options, declared_options


def to_json(options: object) -> dict[str, object]:
    """Return the options by name in types of JSON: paths as text, tuples as lists."""
    return {one.name: _plain(getattr(options, one.name)) for one in declared_options(type(options))}


def binding_settings(options: object) -> dict[str, object]:
    """Return the options that saved work depends on, by name in types of JSON."""
    binding = {one.name for one in declared_options(type(options)) if one.binding}
    return {name: value for name, value in to_json(options).items() if name in binding}


def from_json(options: type[Options], saved: Mapping[str, object], source: str) -> dict[str, object]:
    """Return saved options, checked, as arguments of the constructor of their class.

    Args:
        options: the class of the options.
        saved: values by name, as returned by `to_json`.
        source: the file of the values, for errors.

    Raises:
        UserError: an option is unknown or has an invalid value.
    """
    known = {one.name: one for one in declared_options(options)}
    ignored: frozenset[str] = getattr(options, "recorded", frozenset())
    if unknown := sorted(saved.keys() - known.keys() - ignored):
        raise UserError(f"{source}: {unknown[0]!r} is no option of this script")
    values: dict[str, object] = {}
    for name in saved.keys() & known.keys():
        try:
            values[name] = known[name].check(saved[name])
        except InvalidValueError as error:
            raise UserError(f"{source}: {name} {error}") from error
    return values


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
