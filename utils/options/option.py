"""An option: its name, type, default, help and valid values, and the check of a value."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from utils.files.paths import user_path
from utils.files.reading import parse_number
from utils.text import shorten

NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
"""Names of the types of values in errors."""

WHOLE_NUMBER = re.compile(r"([+-]?)0*([0-9]{1,30})")
"""Pattern of a whole number: a sign and the digits 0 to 9, without spaces and underscores."""


class InvalidValueError(ValueError):
    """An invalid value of an option. The message describes the valid values."""


class ValidValues(Protocol):
    """The valid values of an option; `str` gives their description."""

    def __contains__(self, value: Any, /) -> bool:  # noqa: ANN401  a number or text, by the option's type
        """Return whether a value is valid."""


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
            most = f"less than {self.most}" if self.exclude_most else f"{self.most} at most"
            return f"greater than {self.least}, {most}"
        return f"from {self.least} to {'less than ' if self.exclude_most else ''}{self.most}"


@dataclass(frozen=True)
class Choices:
    """Names that an option can have as its value."""

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
    """True if None is valid; it means that the option is not given."""
    count: int | None = None
    """Number of items of a tuple; 0 for any number, None for a single value."""
    choices: Choices | None = None
    """Names that a Literal allows."""


@dataclass(frozen=True)
class Option:
    """An option of a script."""

    name: str
    value_type: ValueType
    default: object
    """The default value; `dataclasses.MISSING` if the option must be given."""
    help: str
    valid: ValidValues | None
    flag: str | None
    """The flag on the command line; None for a positional argument."""
    metavar: str | tuple[str, ...] | None
    separate: bool
    """True if the items of a tuple are separate words of the command line, not one word with commas."""
    repeated: bool
    """True if each item of a tuple follows its own flag."""
    binding: bool
    """True if saved work can only be continued with the same value."""
    owner: type
    """The class of options that declares it."""

    def check(self, value: object) -> object:
        """Return a value, converted to the option's type.

        Raises:
            InvalidValueError: the value is invalid.
        """
        kind = self.value_type
        if value is None and kind.optional:
            return None
        if kind.count is None:
            return self._check_item(value)
        if not isinstance(value, list | tuple) or kind.count not in (0, len(value)):
            raise self._invalid(value, f"a list of {kind.count or 'any number of'} values, each ")
        return tuple(self._check_item(item) for item in value)

    def parse(self, word: str) -> object:
        """Return the value that a word of the command line stands for.

        Raises:
            InvalidValueError: the word is no valid value.
        """
        if self.value_type.count == 0 and not (self.separate or self.repeated):
            return tuple(self._parse_item(part) for part in word.split(","))
        return self._parse_item(word)

    def describe_valid(self) -> str:
        """Return a description of the valid values, or of the valid items of a tuple."""
        kind = self.value_type
        valid = self.valid or kind.choices
        if isinstance(valid, Choices):
            return f"one of {valid}"
        return NAMES[kind.item] if valid is None else f"{NAMES[kind.item]} {valid}"

    def _invalid(self, value: object, several: str = "") -> InvalidValueError:
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
            if abs(value) >= 2**1000:  # float(value) would fail
                raise self._invalid(value)
            value = float(value)
        if not isinstance(value, item) or (item is int and isinstance(value, bool)):
            raise self._invalid(value)
        valid: ValidValues | None = self.valid or self.value_type.choices
        if valid is not None and value not in valid:
            raise self._invalid(value)
        return value


def _parse_whole_number(word: str) -> int:
    """Return the whole number that a word stands for, also if it has thousands of leading zeros.

    Raises:
        ValueError: the word is no whole number.
    """
    match = WHOLE_NUMBER.fullmatch(word)
    if match is None:
        raise ValueError(word)
    return int(match[1] + match[2])
