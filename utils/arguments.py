"""The scripts' command-line options and their defaults, each in one place."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from models.attention import Activation
from models.backbones import BACKBONES, DEFAULT_BACKBONE
from models.retrieval_network import Pooling
from utils.approximate_search import SearchKind
from utils.descriptor_store import StorePrecision
from utils.device import PRECISIONS
from utils.errors import UserError
from utils.file_names import DATASETS_DIR, WEIGHTS_DIR
from utils.paths import user_path

LONGER_SIDE = 1024
"""S of an evaluation: the longer side of the resized image, in pixels."""

LEVELS = 5
"""L of regional attention: the number of R-MAC levels."""

PCA_LONGER_SIDE = 800
PCA_LEVELS = 3
"""S and L of the pictures that the whitening is learned from."""

ACTIVATION: Activation = "tanh"
DEVICE = "auto"
PRECISION = "float32"
SEED = 0

CHOICES: dict[str, Sequence[str]] = {
    "backbone": tuple(BACKBONES),
    "pooling": get_args(Pooling),
    "activation": get_args(Activation),
    "precision": tuple(PRECISIONS),
    "search": get_args(SearchKind),
    "store_precision": get_args(StorePrecision),
}
LEAST = {
    **{"S": 1, "L": 1, "batch_size": 1, "workers": 0, "seed": 0},
    **{"qe": 0, "dba": 0, "diffusion": 0, "min_side": 1, "components": 1, "samples": 1},
}
"""What the options that several scripts share may be."""


def check_options(options: Mapping[str, object]) -> None:
    """Checks what a parser checks, for those who call a script's main from Python.

    None, what suits or what there is, is no number and is not checked.

    Raises:
        UserError: a value is none of its option's choices, or less than its least.
    """
    for name, value in options.items():
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"{name} {value!r} is none of {', '.join(CHOICES[name])}")
        if name in LEAST and value is not None and (not isinstance(value, int) or value < LEAST[name]):
            raise UserError(f"{name} {value!r} is not an int from {LEAST[name]} up")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names each default, but those which say nothing, as of a switch or where there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        says_nothing = default is None or isinstance(default, bool) or default in ((), [])
        return action.help if says_nothing else super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose complaints are user errors like all others, and that takes no abbreviations."""

    def __init__(self, description: str, **options: object) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=HelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raises a UserError instead of leaving the program."""
        raise UserError(f"{message} (--help lists the options)")


def at_least(least: int) -> Callable[[str], int]:
    """An argument type: a whole number that is not less than `least`."""

    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return number

    return whole_number


def path(text: str) -> Path:
    """An argument type: a path, see `user_path`."""
    try:
        return user_path(text, "the name")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> float:
    """An argument type: a finite number greater than 0."""
    number = not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number greater than 0")
    return number


def not_negative(text: str) -> float:
    """An argument type: a finite number not less than 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return number


def add_backbone_options(
    parser: argparse.ArgumentParser, levels: int = LEVELS, backbone: str = DEFAULT_BACKBONE
) -> None:
    """Options of all jobs that look at regions through a backbone, with the defaults of L and of that."""
    group = parser.add_argument_group("network")
    group.add_argument("--weights-dir", type=path, default=WEIGHTS_DIR, help="folder of the weight files")
    group.add_argument("--backbone", choices=CHOICES["backbone"], default=backbone, help="frozen network")
    group.add_argument("--L", type=at_least(LEAST["L"]), default=levels, help="number of R-MAC levels")


def add_attention_options(parser: argparse.ArgumentParser) -> None:
    """Options of the attention head."""
    parser.add_argument_group("attention").add_argument(
        "--activation",
        choices=CHOICES["activation"],
        default=ACTIVATION,
        help="between the layers of the attention head",
    )


def add_picture_options(parser: argparse.ArgumentParser, longer_side: int = LONGER_SIDE) -> None:
    """Options that say how pictures come to the network; `longer_side` is the default of S."""
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--S",
        type=at_least(LEAST["S"]),
        default=longer_side,
        help="longer side of the resized image, in pixels",
    )
    group.add_argument(
        "--batch-size",
        type=at_least(LEAST["batch_size"]),
        help="images of one size at a time; what suits the device if not given",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where the data are and how to compute."""
    parser.add_argument("--datasets-dir", type=path, default=DATASETS_DIR, help="folder of the data sets")
    parser.add_argument(
        "--seed", type=at_least(LEAST["seed"]), default=SEED, help="of whatever is drawn at random"
    )
    parser.add_argument("--compile", action="store_true", help="have torch compile the backbone first")
    add_device_options(parser)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how to compute."""
    group = parser.add_argument_group("run")
    group.add_argument("--device", default=DEVICE, help="auto, cpu, cuda, or one GPU as cuda:1")
    group.add_argument("--precision", choices=CHOICES["precision"], default=PRECISION, help="of the backbone")
    group.add_argument(
        "--workers",
        type=at_least(LEAST["workers"]),
        help="processes that decode images, 0 for the one that computes; what suits the device if not given",
    )
