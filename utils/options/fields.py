"""Options that are declared once, as fields of a dataclass.

The command line, the check of values that come from Python, and the settings that are saved and loaded again
all derive from the declaration::

    @options_class
    class SearchOptions:
        title = "search"

        qe: int = option(default=5, help="images averaged with the query", valid=Range(0, 1000))

    SearchOptions(qe=-1)  # UserError: qe -1 is not an integer from 0 to 1000
"""

import dataclasses
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Literal,
    Protocol,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from utils.errors import UserError
from utils.files.paths import user_path
from utils.files.reading import parse_number
from utils.text import shorten

Options = TypeVar("Options")

NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
"""The types of values, as errors name them."""

WHOLE_NUMBER = re.compile(r"([+-]?)0*([0-9]{1,30})")
"""Words that stand for a whole number: no spaces, no underscores, no digits but 0 to 9."""


class InvalidValueError(ValueError):
    """A value that an option cannot have; the text says which it can have."""


class ValidValues(Protocol):
    """The values that an option can have, with a description of them as its text."""

    def __contains__(self, value: Any, /) -> bool:  # noqa: ANN401  a number or text, by the option's type
        """Return whether an option can have the value."""


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both included unless excluded."""

    least: float
    most: float
    exclude_least: bool = False
    exclude_most: bool = False

    def __contains__(self, value: float) -> bool:
        """Return whether a number is in the range."""
        is_above = value > self.least if self.exclude_least else value >= self.least
        return is_above and (value < self.most if self.exclude_most else value <= self.most)

    def __str__(self) -> str:
        if self.exclude_least:
            return f"greater than {self.least}, {self.most} at most"
        return f"from {self.least} to {'less than ' if self.exclude_most else ''}{self.most}"


@dataclass(frozen=True)
class Choices:
    """Names, one of which is chosen."""

    names: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        """Return whether a name is among the choices."""
        return value in self.names

    def __str__(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True)
class ValueType:
    """The type of an option's values, read from the annotation of its field."""

    item: type
    """bool, int, float, str or Path."""
    optional: bool = False
    """True if None, "not given", is a value."""
    count: int | None = None
    """Number of items of a tuple; 0 for any number, None for a single value."""
    choices: Choices | None = None
    """Names that a Literal allows."""


@dataclass(frozen=True)
class Option:
    """One option of a script."""

    name: str
    value_type: ValueType
    default: object
    """Its default; `dataclasses.MISSING` if it must be given."""
    help: str
    valid: ValidValues | None
    flag: str | None
    """The flag on the command line; None for a positional argument."""
    metavar: str | tuple[str, ...] | None
    separate: bool
    """True if the items of a tuple are separate words of the command line, not one word with commas."""
    binding: bool
    """True if saved work can only be continued with the same value."""
    owner: type
    """The class of options that declares it."""

    def check(self, value: object) -> object:
        """Return the value in the option's type.

        Raises:
            InvalidValueError: the option cannot have the value.
        """
        kind = self.value_type
        if value is None and kind.optional:
            return None
        if kind.count is None:
            return self._check_item(value)
        if not isinstance(value, list | tuple) or kind.count not in (0, len(value)):
            raise self._invalid(value)
        return tuple(self._check_item(item) for item in value)

    def parse(self, word: str) -> object:
        """Return the value that a word of the command line stands for.

        Raises:
            InvalidValueError: the word stands for no value of the option.
        """
        if self.value_type.count == 0 and not self.separate:
            return tuple(self._parse_item(part) for part in word.split(","))
        return self._parse_item(word)

    def describe_valid(self) -> str:
        """Return a description of the values that one item of the option can have."""
        kind = self.value_type
        valid = self.valid or kind.choices
        if isinstance(valid, Choices):
            return f"one of {valid}"
        return NAMES[kind.item] if valid is None else f"{NAMES[kind.item]} {valid}"

    def _invalid(self, value: object) -> InvalidValueError:
        count = self.value_type.count
        is_list = count is not None and not isinstance(value, str)
        several = f"a list of {count or 'any number'} values, each " if is_list else ""
        return InvalidValueError(f"{shorten(value)} is not {several}{self.describe_valid()}")

    def _parse_item(self, word: str) -> object:
        if self.value_type.item not in (int, float):
            return self._check_item(word)
        try:
            number = parse_number(word) if self.value_type.item is float else _parse_whole_number(word)
        except ValueError as error:
            raise self._invalid(word) from error
        if self.valid is not None and number not in self.valid:
            raise self._invalid(word)
        return number

    def _check_item(self, value: object) -> object:
        item = self.value_type.item
        if item is Path and isinstance(value, str | Path):
            return user_path(value, self.flag or self.name)
        if item is float and isinstance(value, int) and not isinstance(value, bool):
            if abs(value) >= 2**1000:  # float() of it would fail
                raise self._invalid(value)
            value = float(value)
        if not isinstance(value, item) or (item is int and isinstance(value, bool)):
            raise self._invalid(value)
        valid: ValidValues | None = self.valid or self.value_type.choices
        if valid is not None and value not in valid:
            raise self._invalid(value)
        return value


def option(
    *,
    default: Any = dataclasses.MISSING,  # noqa: ANN401  the type checker takes the field's annotation
    help: str,
    valid: ValidValues | None = None,
    flag: str | None = None,
    metavar: str | tuple[str, ...] | None = None,
    separate: bool = False,
    positional: bool = False,
    binding: bool = False,
    kw_only: bool = True,
) -> Any:  # noqa: ANN401  the type checker takes the field's annotation
    """Declare an option as a field of a class of options.

    Args:
        default: the value if the option is not given; the option must be given if it has none.
        help: what the option means, for --help.
        valid: the values of its type that it can have; all if not given.
        flag: its flag on the command line, `--` and its name with hyphens if not given.
        metavar: the name of its value in --help.
        separate: take the items of a tuple from separate words, not from one word with commas.
        positional: take it from the command line without a flag.
        binding: whether saved work can only be continued with the same value.
        kw_only: whether Python callers must name it.
    """
    metadata: dict[str, object] = {"help": help, "valid": valid, "flag": flag, "metavar": metavar}
    metadata |= {"separate": separate, "positional": positional, "binding": binding}
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def redefault(options: type, name: str, default: Any) -> Any:  # noqa: ANN401  as in `option`
    """Declare an option of another class again, with another default."""
    fields = {field.name: field for field in dataclasses.fields(options)}
    return dataclasses.field(default=default, metadata=fields[name].metadata, kw_only=True)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option, redefault))
def options_class(cls: type[Options]) -> type[Options]:
    """Make a frozen dataclass of a class whose fields are options.

    The constructor checks each value, and then calls the method `check` of the class and of each class it
    derives from, where options that exclude each other raise a UserError. `title` names the group in --help.
    """

    def check_values(self: object) -> None:
        for one in declared_options(type(self)):
            try:
                value = one.check(getattr(self, one.name))
            except InvalidValueError as error:
                raise UserError(f"{one.name} {error}") from error
            object.__setattr__(self, one.name, value)
        for ancestor in reversed(type(self).__mro__):
            if "check" in vars(ancestor):
                vars(ancestor)["check"](self)

    cls.__post_init__ = check_values  # type: ignore[attr-defined]  # dataclass calls it
    return dataclass(frozen=True, kw_only=True)(cls)


def declared_options(options: type) -> Iterator[Option]:
    """Yield the options of a class, those of the classes it derives from first."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        metadata = field.metadata
        flag = metadata["flag"] or f"--{field.name.replace('_', '-')}"
        yield Option(
            field.name,
            _value_type(hints[field.name]),
            field.default,
            metadata["help"],
            metadata["valid"],
            None if metadata["positional"] else flag,
            metadata["metavar"],
            metadata["separate"],
            metadata["binding"],
            next(
                owner
                for owner in reversed(options.__mro__)
                if field.name in vars(owner).get("__annotations__", {})
            ),
        )


def to_json(options: object) -> dict[str, object]:
    """Return the options as JSON can hold them: paths as text, tuples as lists."""
    return {one.name: _plain(getattr(options, one.name)) for one in declared_options(type(options))}


def binding_settings(options: object) -> dict[str, object]:
    """Return the options that saved work depends on, as JSON can hold them."""
    binding = {one.name for one in declared_options(type(options)) if one.binding}
    return {name: value for name, value in to_json(options).items() if name in binding}


def from_json(options: type[Options], saved: Mapping[str, object], source: str) -> dict[str, object]:
    """Return the saved options that a class has, checked, as arguments of its constructor.

    Args:
        options: the class.
        saved: values by name, as `to_json` gives them.
        source: the file that they come from, for errors.

    Raises:
        UserError: a name is no option, or an option cannot have its value.
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


def _parse_whole_number(word: str) -> int:
    """Return the whole number that a word stands for; int() alone refuses some thousand leading zeros."""
    match = WHOLE_NUMBER.fullmatch(word)
    if match is None:
        raise ValueError(word)
    return int(match[1] + match[2])


def make(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Return the options of a class with values by name, which the constructor checks."""
    return options(**values)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _value_type(annotation: object) -> ValueType:
    """Return the type of the values that an annotation allows."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not types.NoneType]
        return dataclasses.replace(_value_type(inner[0]), optional=True)
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        count = 0 if items[-1] is Ellipsis else len(items)
        return dataclasses.replace(_value_type(items[0]), count=count)
    if get_origin(annotation) is Literal:
        return ValueType(str, choices=Choices(get_args(annotation)))
    if not isinstance(annotation, type):
        raise TypeError(f"options cannot have the type {annotation}")
    return ValueType(annotation)
