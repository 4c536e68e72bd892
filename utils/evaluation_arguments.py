"""The evaluation's own command-line options: how to describe, to keep and to search; with their defaults."""

import argparse
import math
from collections.abc import Mapping, Sequence

from models.retrieval_network import Pooling
from utils import diffusion
from utils.approximate_search import SearchKind
from utils.arguments import CHOICES, LEAST, at_least, check_options, not_negative, path, positive
from utils.descriptor_store import StorePrecision
from utils.errors import UserError

POOLING: Pooling = "ra"
SCALES = (1.0,)
EXPANSION = 5
"""Images averaged with the query for its expansion."""

ALPHA = 0.0
AUGMENTATION = 0
DIFFUSION = 0
DIFFUSION_ALPHA = diffusion.ALPHA
SEARCH: SearchKind = "exact"
STORE_PRECISION: StorePrecision = "float32"
"""Of searches and of a descriptor store."""


def check_evaluation_options(options: Mapping[str, object]) -> None:
    """Checks what a parser checks, for those who call main from Python, and what does not go together.

    Raises:
        UserError: a value is none that its option takes, or an option is of no use beside the others.
    """
    check_options(options)
    alpha, share_passed_on = options["alpha"], options["diffusion_alpha"]
    compare, poolings = options["compare"], CHOICES["pooling"]
    check_scales(options["scales"])
    checks = {
        "alpha": (_is_number(alpha) and alpha >= 0, "a number from 0 up"),
        "diffusion_alpha": (
            _is_number(share_passed_on) and 0 <= share_passed_on < 1,
            "a number from 0 to less than 1",
        ),
        "compare": (
            _is_list(compare) and (len(compare) == 0 or _are_different_poolings(compare)),
            f"a list of two or more of {', '.join(poolings)}",
        ),
    }
    for name, (fits, told) in checks.items():
        if not fits:
            raise UserError(f"{name} {options[name]!r} is not {told}")
    if alpha != ALPHA and not options["qe"]:
        raise UserError(
            f"alpha {alpha} weighs the images of a query's expansion, and qe 0 is none: leave one out"
        )
    if share_passed_on != DIFFUSION_ALPHA and not options["diffusion"]:
        raise UserError(
            f"diffusion_alpha {share_passed_on} is of no use without diffusion: give that as well"
        )
    if options["store_precision"] != STORE_PRECISION and options["descriptors"] is None:
        raise UserError(
            f"store_precision {options['store_precision']} is of no use without a store: "
            "name its folder by descriptors"
        )


def check_scales(scales: object) -> None:
    """Checks the factors at which each image is described.

    Raises:
        UserError: they are no list of numbers greater than 0.
    """
    if not (_is_list(scales) and scales and all(_is_number(scale) and scale > 0 for scale in scales)):
        raise UserError(f"scales {scales!r} is not a list of numbers greater than 0")


def share(text: str) -> float:
    """An argument type: a number from 0 to less than 1."""
    number = not_negative(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to less than 1")
    return number


def pooling_list(text: str) -> tuple[str, ...]:
    """An argument type: at least two different poolings, with commas between."""
    poolings = tuple(text.split(","))
    if not _are_different_poolings(poolings):
        raise argparse.ArgumentTypeError(f"{text!r} is not two or more of {','.join(CHOICES['pooling'])}")
    return poolings


def scale_list(text: str) -> tuple[float, ...]:
    """An argument type: numbers greater than 0, with commas between."""
    return tuple(positive(part) for part in text.split(","))


def add_descriptor_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how regions become descriptors."""
    group = parser.add_argument_group("descriptors")
    group.add_argument(
        "--pooling",
        choices=CHOICES["pooling"],
        default=POOLING,
        help="regional attention, R-MAC (all regions alike) or MAC (the whole map)",
    )
    group.add_argument(
        "--scales",
        type=scale_list,
        default=",".join(f"{scale:g}" for scale in SCALES),  # as it is typed, for --help
        metavar="SCALE,...",
        help="factors, such as 0.7071,1,1.4142, at which each image is described; the mean counts",
    )
    group.add_argument("--no-whiten", dest="whiten", action="store_false", help="leave the PCA whitening out")


def add_comparison_option(parser: argparse.ArgumentParser) -> None:
    """The option that compares poolings."""
    parser.add_argument(
        "--compare",
        type=pooling_list,
        default=(),
        metavar="POOLING,...",
        help="instead of --pooling several, such as ra,rmac,mac, whose scores are printed side by side",
    )


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Options of what is kept of the descriptors."""
    group = parser.add_argument_group("descriptor store")
    group.add_argument(
        "--descriptors",
        type=path,
        help="folder that keeps each descriptor, where a killed run goes on and the next one finds them",
    )
    group.add_argument(
        "--store-precision",
        choices=CHOICES["store_precision"],
        default=STORE_PRECISION,
        help="number type of the descriptors there",
    )


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Options of the ways to search and search again."""
    group = parser.add_argument_group("search")
    group.add_argument(
        "--search", choices=CHOICES["search"], default=SEARCH, help="exactly, or by an index of FAISS's"
    )
    group.add_argument(
        "--qe",
        type=at_least(LEAST["qe"]),
        default=EXPANSION,
        help="images averaged with the query for its expansion; 0 for none",
    )
    group.add_argument(
        "--alpha",
        type=not_negative,
        default=ALPHA,
        help="these images count by their similarity to this power; 0 for all alike",
    )
    group.add_argument(
        "--dba",
        type=at_least(LEAST["dba"]),
        default=AUGMENTATION,
        help="nearest neighbours that each image of the database is averaged with; 0 for none",
    )
    group.add_argument(
        "--diffusion",
        type=at_least(LEAST["diffusion"]),
        default=DIFFUSION,
        help="neighbours of an image in the graph that similarities spread over at last; 0 for no diffusion",
    )
    group.add_argument(
        "--diffusion-alpha",
        type=share,
        default=DIFFUSION_ALPHA,
        help="share that goes on from image to image; less for small databases",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _are_different_poolings(values: Sequence[object]) -> bool:
    return (
        len(values) >= 2
        and all(value in CHOICES["pooling"] for value in values)
        and len(set(values)) == len(values)
    )
