"""A command line made of a class of options."""

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
"""Characters of a parser's message, which repeats words of the command line."""

First = TypeVar("First")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises a UserError instead of leaving the program, and takes no abbreviations."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError with the parser's message, the middle of a long one left out."""
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
    """Return the options that a command line gives.

    Args:
        options: their class.
        description: the first line of --help.
        words: the command line's words; this process's if not given.
        program: the name of the program in --help.

    Raises:
        UserError: a word is no option, or an option cannot have its value.
    """
    parser = ArgumentParser(description, program)
    add_options(parser, options)
    return make_options(options, parser.parse_intermixed_args(words))


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add the options of a class to a parser, in a group per class that declares some."""
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
    """Return the options of a parsed command line, those not given from the file after --config."""
    values = vars(given)
    config = values.pop("config", None)
    saved: dict[str, object] = {}
    if config is not None:
        path = user_path(config, "--config")
        saved = from_json(options, read_settings(path), str(path))
    return make(options, saved | values)


def read_settings(path: Path) -> dict[str, object]:
    """Return the settings in a record of an earlier run, or in a file of settings alone.

    Raises:
        UserError: the file is unreadable or holds no settings.
    """
    try:
        record = read_json(path, dict[str, object])
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    return check_record(path, record.get("settings", record), dict[str, object])


def called_with(
    options: Callable[Parameters, Options],
) -> Callable[[Callable[[Options], Result]], Callable[Parameters, Result]]:
    """Return a decorator that lets Python callers give a function's options by their names.

    Args:
        options: the class of the options that the function takes.
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
    """Return a decorator as `called_with`, for a function with one more parameter before its options."""

    def decorate(
        function: Callable[[First, Options], Result],
    ) -> Callable[Concatenate[First, Parameters], Result]:
        @wraps(function)
        def call(first: First, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            return function(first, options(*args, **kwargs))

        return call

    return decorate


def _add_option(group: argparse._ActionsContainer, one: Option) -> None:
    """Add one option; argparse never sees its default, so that given options can be told from others."""
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
        name, nargs=nargs, type=parse, metavar=metavar, default=argparse.SUPPRESS, help=_help_text(one)
    )
    if one.flag is not None:
        action.dest, action.required = one.name, must_be_given


def _help_text(one: Option) -> str:
    """Return an option's help with its default, unless the default is a switch or nothing."""
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
