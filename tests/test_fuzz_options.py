"""Any command line gives options that survive JSON, a UserError, or the help."""

import argparse
import contextlib
import dataclasses
import io
from functools import lru_cache
from itertools import chain
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import LearningPCA_landmark
import Measure_OxfordParis
import Prepare_Datasets
import Search_Images
import Training_ImageNet
from utils.errors import UserError
from utils.options.saved_options import from_json, to_json

SCRIPTS = {
    "measure": (Measure_OxfordParis, ["evaluate"], []),
    "train": (Training_ImageNet, ["train"], []),
    "pca": (LearningPCA_landmark, ["learn"], []),
    "index": (Search_Images, ["run_index", "run_query"], ["index"]),
    "query": (Search_Images, ["run_index", "run_query"], ["query"]),
    "prepare": (Prepare_Datasets, ["prepare", "verify"], []),
}
"""By name: a script, its functions that do the work, and the words before its options."""

WORDS = [
    *(
        "",
        " ",
        "-",
        "--",
        "---",
        "=",
        "--=",
        "@",
        "%",
        "%s",
        "\n",
        "\ud800",
        "~",
        "~nobody",
        "/",
        ".",
        "..",
        "x" * 5000,
    ),
    *(
        "0",
        "1",
        "-1",
        "+1",
        "1_0",
        "\u0663",
        "1.5",
        ".5",
        "1e3",
        "1e999",
        "-0",
        "nan",
        "inf",
        "0x10",
        "9" * 5000,
    ),
    *(
        "cpu",
        "auto",
        "ra",
        "ra,rmac",
        "1,1.4",
        "1,,2",
        ",",
        "exact",
        "Mini",
        "verify",
        "Oxford",
        "index",
        "query",
    ),
]


class _StopError(Exception):
    """Raised to end a command line when its parser is complete."""


@lru_cache
def option_strings(name):
    """Return the option strings of a command of a script."""
    script, _, command = SCRIPTS[name]
    parsers = []

    def stop(parser, *_):
        parsers.append(parser)
        raise _StopError

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(argparse.ArgumentParser, "parse_intermixed_args", stop),
        contextlib.suppress(_StopError),
    ):
        script.command_line([])
    for word in command:
        (commands,) = (
            action for action in parsers[0]._actions if isinstance(action, argparse._SubParsersAction)
        )
        parsers = [commands.choices[word]]
    return [option for action in parsers[0]._actions for option in action.option_strings]


def words(name):
    """Return a strategy of words that a user could type after the name of a script."""
    value = st.sampled_from(WORDS) | st.text(st.characters(exclude_characters="\0"), max_size=12)
    option = st.sampled_from(option_strings(name))
    glued = st.tuples(option, value).map("=".join)
    pair = st.tuples(option, value).map(list)
    parts = st.lists(pair | st.lists(option | value | glued, min_size=1, max_size=3), max_size=3)
    return parts.map(lambda lists: [*SCRIPTS[name][2], *chain.from_iterable(lists)])


@pytest.mark.parametrize("name", SCRIPTS)
def test_any_words_give_options_or_an_error_for_the_user(name):
    script, jobs, _ = SCRIPTS[name]

    def job(*values):
        options = values[-1]
        if dataclasses.is_dataclass(options):
            assert type(options)(**from_json(type(options), to_json(options), "x.json")) == options

    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(words(name))
    def attempt(line):
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for function in jobs:
                stack.enter_context(mock.patch.object(script, function, job))
            try:
                script.command_line(line)
            except UserError as error:
                assert str(error)
            except SystemExit as end:
                assert end.code == 0 and any(word in ("-h", "--help") for word in line)

    attempt()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_options_of_each_command_are_known(name):
    assert {"--help"} < set(option_strings(name)) and len(option_strings(name)) > 8
