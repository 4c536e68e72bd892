"""Time of `python Search_Images.py query` as a process, from its start to its end, by size of the index.

The index holds made-up descriptors of the default network in float32 and one image, which was drawn. It is
queried with this image, whose descriptor is in the index, and with a copy, which the network describes.

    python -m benchmarks.query --sizes 10 10000 100000
    python -m benchmarks.query --compare-with ../old-checkout
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.search import keys_of
from benchmarks.timing import machine
from utils.descriptors.keys import image_key
from utils.descriptors.settings import descriptor_settings
from utils.descriptors.store import SHARD_ROWS, open_store
from utils.file_names import INDEX_STORE
from utils.image_index.catalogue import write_index
from utils.images.loading import InputImage
from utils.options.options_class import make, option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.photo_search.options import DescribeOptions
from utils.program.run_command import run_command

ROOT = Path(__file__).resolve().parents[1]
SIZES = (10, 10_000)
WIDTH = 512
"""Dimensions of the descriptors of the default network."""
SIDES = (1600, 1200)


@options_class
class QueryBenchmarkOptions:
    """Options of the measurement."""

    title = "measurement"

    sizes: tuple[int, ...] = option(
        default=SIZES, help="sizes of the indexes searched", valid=COUNTS, separate=True
    )
    rounds: int = option(default=5, help="runs of each query", valid=COUNTS)
    compare_with: Path | None = option(
        default=None, help="another checkout, whose queries run in turn with those of this one"
    )


def make_index(folder: Path, image: Path, size: int) -> None:
    """Write an index of an image and of made-up images, with random descriptors of length 1."""
    options = make(DescribeOptions, {})
    settings = descriptor_settings(options, [options.pooling])
    store = open_store(folder / INDEX_STORE, settings, verify=False)
    keys = [image_key(InputImage(image), image.name), *keys_of(size - 1)]
    rng = np.random.default_rng(size)
    for start in range(0, size, SHARD_ROWS):
        rows = rng.standard_normal((min(SHARD_ROWS, size - start), WIDTH), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        store.add(keys[start : start + SHARD_ROWS], rows)
    store.flush()
    store.read(verify=False)
    write_index(folder, image.parent, keys, settings, store)


def query(checkout: Path, index: Path, image: Path) -> None:
    """Run a query as a process, in the folder of a checkout.

    Raises:
        CalledProcessError: the query fails.
    """
    command = [sys.executable, "Search_Images.py", "query", str(image), "--index", str(index), "--top", "3"]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)


def processor_seconds() -> float:
    """Return the processor time of the ended child processes of this process."""
    times = os.times()
    return times.children_user + times.children_system


def report(options: QueryBenchmarkOptions, folder: Path) -> None:
    """Print the table."""
    image, copy = folder / "images" / "drawn.jpg", folder / "copy.jpg"
    image.parent.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(SIDES, Image.Resampling.BICUBIC).save(image)
    shutil.copyfile(image, copy)
    checkouts = {"this": ROOT}
    if options.compare_with is not None:
        checkouts["the other"] = options.compare_with.resolve()
    functions: dict[str, Callable[[], None]] = {}
    for size in options.sizes:
        index = folder / str(size)
        make_index(index, image, size)
        for kind, file in (("indexed", image), ("new", copy)):
            for name, checkout in checkouts.items():
                functions[f"{size:,} | {kind} | {name}"] = partial(query, checkout, index, file)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for round_number in range(options.rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter(), processor_seconds()
            function()
            if round_number:  # the first round fills caches
                seconds[name].append((time.perf_counter() - start[0], processor_seconds() - start[1]))
    print("| images in the index | queried image | checkout | s | processor, s |")
    print("|---|---|---|---|---|")
    for name, pairs in seconds.items():
        wall, processor = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {wall:.2f} | {processor:.2f} |", flush=True)


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(QueryBenchmarkOptions, __doc__.splitlines()[0])
    print(machine(), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report(options, Path(folder))


if __name__ == "__main__":
    sys.exit(run_command(command_line))
