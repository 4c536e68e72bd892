"""The evaluation's own command-line options: how to describe, to keep and to search; with their defaults."""

import argparse
from collections.abc import Mapping, Sequence

from models.retrieval_network import Pooling
from utils.descriptors.store import StorePrecision
from utils.errors import UserError
from utils.options.arguments import CHOICES, check_options, path
from utils.options.ranges import RANGES
from utils.search import diffusion
from utils.search.approximate import SearchKind
from utils.text import brief

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
    compare = options["compare"]
    if not (_is_list(compare) and (len(compare) == 0 or _are_different_poolings(compare))):
        raise UserError(
            f"compare {brief(compare)} is not a list of two or more of {', '.join(CHOICES['pooling'])}"
        )
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


def pooling_list(text: str) -> tuple[str, ...]:
    """An argument type: at least two different poolings, with commas between."""
    poolings = tuple(text.split(","))
    if not _are_different_poolings(poolings):
        raise argparse.ArgumentTypeError(
            f"{brief(text)} is not two or more of {','.join(CHOICES['pooling'])}"
        )
    return poolings


def scale_list(text: str) -> tuple[float, ...]:
    """An argument type: numbers greater than 0, with commas between."""
    return tuple(RANGES["scales"](part) for part in text.split(","))


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
        type=RANGES["qe"],
        default=EXPANSION,
        help="images averaged with the query for its expansion; 0 for none",
    )
    group.add_argument(
        "--alpha",
        type=RANGES["alpha"],
        default=ALPHA,
        help="these images count by their similarity to this power; 0 for all alike",
    )
    group.add_argument(
        "--dba",
        type=RANGES["dba"],
        default=AUGMENTATION,
        help="nearest neighbours that each image of the database is averaged with; 0 for none",
    )
    group.add_argument(
        "--diffusion",
        type=RANGES["diffusion"],
        default=DIFFUSION,
        help="neighbours of an image in the graph that similarities spread over at last; 0 for no diffusion",
    )
    group.add_argument(
        "--diffusion-alpha",
        type=RANGES["diffusion_alpha"],
        default=DIFFUSION_ALPHA,
        help="share that goes on from image to image; less for small databases",
    )


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _are_different_poolings(values: Sequence[object]) -> bool:
    return (
        len(values) >= 2
        and all(value in CHOICES["pooling"] for value in values)
        and len(set(values)) == len(values)
    )
