"""Time of the re-rankings of the first 100 images of one query, without describing the images.

Descriptors, regions and local features are random. Times are of the processor, so that other processes do not
count, but they count the work of all threads.

    python -m benchmarks.reranking
"""

import sys
import time
from functools import partial

import numpy as np

from benchmarks.timing import machine, time_in_turn
from utils.descriptors.region_vectors import ImageRegions
from utils.images.local_features import POINTS, LocalFeatures, count_inliers
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.program.run_command import run_command
from utils.search.reranking.k_reciprocal import k_reciprocal
from utils.search.reranking.regions import regions
from utils.search.reranking.reranker import FirstImages
from utils.search.reranking.superglobal import superglobal

REGIONS = 85
"""Regions of an image of 500 x 900 pixels."""


@options_class
class RerankingBenchmarkOptions:
    """Options of the measurement."""

    title = "measurement"

    images: int = option(default=100, help="first images per query", valid=COUNTS)
    dimensions: int = option(default=512, help="dimensions of the descriptors and regions", valid=COUNTS)
    rounds: int = option(default=5, help="calls of each re-ranking, whose median counts", valid=COUNTS)


def directions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return random vectors of length 1, float32."""
    vectors = rng.standard_normal(shape, np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def report(options: RerankingBenchmarkOptions) -> None:
    """Print a table of the milliseconds per query of each re-ranking."""
    rng = np.random.default_rng(0)
    count, width = options.images, options.dimensions
    first = FirstImages(0, directions(rng, width), np.arange(count), directions(rng, count, width))
    of_images: list[ImageRegions | None] = [
        ImageRegions(directions(rng, REGIONS, width).astype(np.float16), np.ones(REGIONS, np.float16))
        for _ in range(count)
    ]
    features = [
        LocalFeatures(
            rng.random((POINTS, 2), np.float32) * 1000, rng.integers(0, 128, (POINTS, 128)).astype(np.uint8)
        )
        for _ in range(count)
    ]

    def geometry() -> None:
        for image in features:
            count_inliers(features[0], image)

    seconds = time_in_turn(
        {
            "k-reciprocal": partial(k_reciprocal, first),
            "superglobal": partial(superglobal, first),
            "regions": partial(regions, first, queries=lambda _: of_images[:1], database=lambda _: of_images),
            "geometry": geometry,
        },
        options.rounds,
        time.process_time,
    )
    print(f"{machine()}\n\n| re-ranking of {count} images | ms per query |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {1000 * value:.1f} |")


def command_line() -> None:
    """Read the options and print the table."""
    report(parse_options(RerankingBenchmarkOptions, __doc__.splitlines()[0]))


if __name__ == "__main__":
    sys.exit(run_command(command_line))
