"""Command lines made from classes of options."""

import argparse
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

from utils.errors import UserError
from utils.files.paths import user_path
from utils.files.records import check_record, read_json
from utils.options.option import Choices, InvalidValueError, Option, Range
from utils.options.options_class import declared_options, make
from utils.options.saved_options import from_json

Options = TypeVar("Options")
LONGEST_MESSAGE = 600
"""Largest number of characters of a parser's message, which repeats words of the command line."""

First = TypeVar("First")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class ArgumentParser(argparse.ArgumentParser):
    """Parser that raises a UserError instead of ending the program, and accepts no abbreviated options."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise an error with the parser's message, without the middle part if it is long.

        Raises:
            UserError: always.
        """
        if len(message) > LONGEST_MESSAGE:
            half = LONGEST_MESSAGE // 2
            message = f"{message[:half]}...{message[-half:]}"
        raise UserError(f"{message} (--help lists the options)")


def parse_options(
    options: type[Options],
    description: str,
    words: Sequence[str] | None = None,
    program: str | None = None,
) -> Options:
    """Return the options given on a command line.

    Args:
        options: class of the options.
        description: first line of --help.
        words: words of the command line; the command line of this process if not given.
        program: name of the program in --help.

    Raises:
        UserError: an option is unknown or missing, or has an invalid value.
    """
    parser = ArgumentParser(description, program)
    add_options(parser, options)
    return make_options(options, parser.parse_intermixed_args(words))


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add the options of a class to a parser, one group per class that declares options."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for one in declared_options(options):
        if one.flag is None:
            _add_option(parser, one)
            continue
        title = getattr(one.owner, "title", "options")
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_option(groups[title], one)
    parser.add_argument(
        "--config",
        default=argparse.SUPPRESS,
        help="take options that are not given from this file of an earlier run",
    )


def make_options(options: type[Options], given: argparse.Namespace) -> Options:
    """Return the options of a parsed command line. Options that are not given come from the --config file.

    Raises:
        UserError: the file is missing or unreadable, or a value is invalid.
    """
    values = vars(given)
    config = values.pop("config", None)
    saved: dict[str, object] = {}
    if config is not None:
        path = user_path(config, "--config")
        saved = from_json(options, read_settings(path), str(path))
    return make(options, saved | values)


def read_settings(path: Path) -> dict[str, object]:
    """Return the settings in a record of an earlier run, or in a file that holds only settings.

    Raises:
        UserError: the file is missing or unreadable, or holds no settings.
    """
    try:
        record = read_json(path, dict[str, object])
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    return check_record(path, record.get("settings", record), dict[str, object])


def called_with(
    options: Callable[Parameters, Options],
) -> Callable[[Callable[[Options], Result]], Callable[Parameters, Result]]:
    """Return a decorator with which Python callers give the options of a function by name.

    Args:
        options: class of the options that the function takes.
    """

    def decorate(function: Callable[[Options], Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            return function(options(*args, **kwargs))

        call.__signature__ = inspect.signature(options)  # type: ignore[attr-defined]  # help() shows it
        return call

    return decorate


def called_with_first(
    options: Callable[Parameters, Options],
) -> Callable[[Callable[[First, Options], Result]], Callable[Concatenate[First, Parameters], Result]]:
    """Return a decorator like `called_with`, for a function with one more parameter before its options."""

    def decorate(
        function: Callable[[First, Options], Result],
    ) -> Callable[Concatenate[First, Parameters], Result]:
        @wraps(function)
        def call(first: First, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            return function(first, options(*args, **kwargs))

        return call

    return decorate


def _add_option(group: argparse._ActionsContainer, one: Option) -> None:
    """Add an option to a parser, without its default, so that the result has only options that are given."""
    kind = one.value_type
    name = one.name if one.flag is None else one.flag
    if kind.item is bool:
        change = "store_false" if one.default is True else "store_true"
        switch = group.add_argument(name, action=change, default=argparse.SUPPRESS, help=_help_text(one))
        switch.dest = one.name
        return

    def parse(word: str) -> object:
        try:
            return one.parse(word)
        except InvalidValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    valid = one.valid or kind.choices
    metavar = one.metavar
    if metavar is None and isinstance(valid, Choices) and kind.count is None:
        metavar = f"{{{','.join(valid.names)}}}"
    must_be_given = one.default is dataclasses.MISSING
    nargs = kind.count or ("+" if one.separate else None)
    if one.flag is None and not must_be_given:
        nargs = "*" if one.separate else "?"
    action = group.add_argument(
        name,
        nargs=nargs,
        type=parse,
        metavar=metavar,
        action="append" if one.repeated else "store",
        default=argparse.SUPPRESS,
        help=_help_text(one),
    )
    if one.flag is not None:
        action.dest, action.required = one.name, must_be_given


def _help_text(one: Option) -> str:
    """Return the help of an option, with its range and its default unless the default is empty or a bool."""
    default = one.default
    text = one.help
    if isinstance(one.valid, Range):
        text += f" ({str(one.valid).removeprefix('from ')})"
    if default in (None, (), "") or isinstance(default, bool) or default is dataclasses.MISSING:
        return text.replace("%", "%%")
    if isinstance(default, tuple):
        separator = " " if one.value_type.count or one.separate else ","
        default = separator.join(f"{item:g}" if isinstance(item, float) else str(item) for item in default)
    return f"{text} (default: {default})".replace("%", "%%")
