"""The scripts' command-line options and their defaults, each in one place."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from models.attention import Activation
from models.backbones import BACKBONES, DEFAULT_BACKBONE
from models.retrieval_network import Pooling
from utils.descriptors.store import StorePrecision
from utils.device import PRECISIONS
from utils.errors import UserError
from utils.file_names import DATASETS_DIR, WEIGHTS_DIR
from utils.files.paths import user_path
from utils.options.ranges import COUNT, RANGES, Range, check_numbers
from utils.search.approximate import SearchKind
from utils.text import brief

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


def check_options(options: Mapping[str, object]) -> None:
    """Checks what a parser checks, for those who call a script's main from Python.

    Raises:
        UserError: a value is none of its option's choices, or not in its range.
    """
    for name, value in options.items():
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"{name} {brief(value)} is none of {', '.join(CHOICES[name])}")
    check_numbers(options)


LONGEST_COMPLAINT = 600
"""Characters of a parser's complaint; a longer one repeats a long word, and its middle is left out."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names each range and each default, except for None, switches and empty lists."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        says_nothing = default is None or isinstance(default, bool) or default in ((), [])
        text = action.help if says_nothing else super()._get_help_string(action)
        if text and action.help and isinstance(action.type, Range):
            text = text.replace(action.help, f"{action.help} ({action.type.span})", 1)
        return text


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
        if len(message) > LONGEST_COMPLAINT:
            half = LONGEST_COMPLAINT // 2
            message = f"{message[:half]}...{message[-half:]}"
        raise UserError(f"{message} (--help lists the options)")


def at_least(least: int) -> Range:
    """Return an argument type: a whole number from `least` to a thousand million."""
    return Range(least, COUNT.most)


def path(text: str) -> Path:
    """An argument type: a path, see `user_path`."""
    try:
        return user_path(text, "the name")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_backbone_options(
    parser: argparse.ArgumentParser, levels: int = LEVELS, backbone: str = DEFAULT_BACKBONE
) -> None:
    """Options of all jobs that look at regions through a backbone, with the defaults of L and of that."""
    group = parser.add_argument_group("network")
    group.add_argument("--weights-dir", type=path, default=WEIGHTS_DIR, help="folder of the weight files")
    group.add_argument("--backbone", choices=CHOICES["backbone"], default=backbone, help="frozen network")
    group.add_argument("--L", type=RANGES["L"], default=levels, help="number of R-MAC levels")


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
        type=RANGES["S"],
        default=longer_side,
        help="longer side of the resized image, in pixels",
    )
    group.add_argument(
        "--batch-size",
        type=RANGES["batch_size"],
        help="images of one size at a time; what suits the device if not given",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where the data are and how to compute."""
    parser.add_argument("--datasets-dir", type=path, default=DATASETS_DIR, help="folder of the data sets")
    parser.add_argument("--seed", type=RANGES["seed"], default=SEED, help="of whatever is drawn at random")
    parser.add_argument("--compile", action="store_true", help="have torch compile the backbone first")
    add_device_options(parser)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how to compute."""
    group = parser.add_argument_group("run")
    group.add_argument("--device", default=DEVICE, help="auto, cpu, cuda, or one GPU as cuda:1")
    group.add_argument("--precision", choices=CHOICES["precision"], default=PRECISION, help="of the backbone")
    group.add_argument(
        "--workers",
        type=RANGES["workers"],
        help="processes that decode images, 0 for the one that computes; what suits the device if not given",
    )
