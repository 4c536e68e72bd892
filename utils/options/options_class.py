"""Options, each declared once as a field of a dataclass.

The command line, the checks of values given in Python, and the saved settings are derived from the
declaration::

    @options_class
    class SearchOptions:
        title = "search"

        qe: int = option(default=5, help="images averaged with the query", valid=Range(0, 1000))

    SearchOptions(qe=-1)  # UserError: qe -1 is not an integer from 0 to 1000
"""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from utils.errors import UserError
from utils.options.option import Choices, InvalidValueError, Option, ValidValues, ValueType

Options = TypeVar("Options")


def option(
    *,
    default: Any = dataclasses.MISSING,  # noqa: ANN401  the type checker takes the field's annotation
    help: str,
    valid: ValidValues | None = None,
    flag: str | None = None,
    metavar: str | tuple[str, ...] | None = None,
    separate: bool = False,
    repeated: bool = False,
    positional: bool = False,
    binding: bool = False,
    kw_only: bool = True,
) -> Any:  # noqa: ANN401  the type checker takes the field's annotation
    """Declare an option as a field of a class of options.

    Args:
        default: the value if the option is not given; an option without a default must be given.
        help: text for --help.
        valid: the valid values; all values of the type if not given.
        flag: flag on the command line; `--` and the name with hyphens if not given.
        metavar: name of the value in --help.
        separate: whether the items of a tuple are separate words, instead of one word with commas.
        repeated: whether each item of a tuple follows its own flag.
        positional: whether the command line takes the option without a flag.
        binding: whether saved work can only be continued with the same value.
        kw_only: whether Python callers must give the option by name.
    """
    metadata: dict[str, object] = {"help": help, "valid": valid, "flag": flag, "metavar": metavar}
    metadata |= {"separate": separate, "repeated": repeated, "positional": positional, "binding": binding}
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def redefault(options: type, name: str, default: Any) -> Any:  # noqa: ANN401  as in `option`
    """Declare an option of another class again, with another default.

    Args:
        options: the class that declares the option.
        name: name of the option.
        default: the new default.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}
    return dataclasses.field(default=default, metadata=fields[name].metadata, kw_only=True)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option, redefault))
def options_class(cls: type[Options]) -> type[Options]:
    """Turn a class whose fields are options into a frozen dataclass.

    The constructor checks each value and raises a UserError if it is invalid. It then calls the method
    `check` of each base class and of the class, which raises a UserError if options do not suit each other.
    The attribute `title` is the title of the group in --help.
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
    """Yield the options of a class, beginning with the options of its base classes."""
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
            metadata["repeated"],
            metadata["binding"],
            next(
                owner
                for owner in reversed(options.__mro__)
                if field.name in vars(owner).get("__annotations__", {})
            ),
        )


def make(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Construct options from values by name.

    Raises:
        UserError: a value is invalid.
    """
    return options(**values)


def _value_type(annotation: object) -> ValueType:
    """Return the type of values that an annotation allows."""
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
