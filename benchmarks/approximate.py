"""Approximate index of photographs: time to build and update it, and recall against time of a query.

The descriptors are clustered: topics, objects of a topic, and images at different distances from an object.
Large objects have many images, most have few. They have the dimensions of the default network, in float32. A
query is one image of the index, at a time, with its first 10 matches besides itself. `exact` compares all
images, in the page cache; `chosen` is the number of lists that the index chooses.

    python -m benchmarks.approximate --sizes 10000 100000 1000000
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.search import keys_of
from benchmarks.timing import machine, timed
from utils.descriptors.store import SHARD_ROWS, open_store
from utils.file_names import INDEX_STORE
from utils.image_index.approximate_update import update_approximate
from utils.image_index.catalogue import write_index
from utils.image_index.image_index import ImageIndex, read_index
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.program.run_command import run_command
from utils.search.approximate import load_faiss

WIDTH = 512
TOPICS = 200
IMAGES_PER_OBJECT = 20
QUERIES = 100
MATCHES = 10
PROBES = (1, 2, 4, 8, 16, 32, 64)
EDGES, CONSTRUCTION = 32, 80
"""Edges per image of HNSW, and candidates when an image is added."""
BREADTHS = (32, 128, 512)
"""Candidates of HNSW when it is searched."""
LARGEST_GRAPH = 100_000
"""Size above which HNSW is left out, since building it takes too long."""
SETTINGS = {
    "backbone": "efficientnet_lite0",
    "pooling": "ra",
    "whiten": True,
    "S": 512,
    "scales": [1.0],
    "precision": "float32",
}

Search = Callable[[np.ndarray], Sequence[int] | np.ndarray]


@options_class
class ApproximateOptions:
    """Options of the measurement."""

    title = "measurement"

    sizes: tuple[int, ...] = option(
        default=(10_000, 100_000), help="sizes of the indexes", valid=COUNTS, separate=True
    )


def write_images(folder: Path, keys: list[str], new: int, seed: int) -> ImageIndex:
    """Add clustered descriptors to the store of an index, for the last keys, and write the index.

    Args:
        folder: folder of the index.
        keys: keys of all images of the index.
        new: number of images, the last ones, that are added to the store.
        seed: seed of their descriptors.
    """
    store = open_store(folder / INDEX_STORE, SETTINGS, verify=False)
    objects = max(len(keys) // IMAGES_PER_OBJECT, 1)
    centres = np.random.default_rng(0).standard_normal((TOPICS, WIDTH), np.float32)
    centres = 0.6 * centres[np.arange(objects) % TOPICS]
    centres += np.random.default_rng(1).standard_normal((objects, WIDTH), np.float32)
    shares = 1 / np.arange(1, objects + 1) ** 0.7
    rng = np.random.default_rng([2, seed])
    for start in range(len(keys) - new, len(keys), SHARD_ROWS):
        names = keys[start : start + SHARD_ROWS]
        rows = rng.standard_normal((len(names), WIDTH), np.float32)
        rows *= rng.uniform(0.2, 1.2, (len(names), 1)).astype(np.float32)
        rows += centres[rng.choice(objects, len(names), p=shares / shares.sum())]
        store.add(names, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    store.flush()
    store.read(verify=False)
    write_index(folder, folder, keys, SETTINGS, store)
    return read_index(folder)


def measured(search: Search, queries: np.ndarray, exact: list[set[int]], itself: np.ndarray) -> str:
    """Return the milliseconds of a query, by the median of all, and the recall, as cells of the table."""
    seconds, shares = [], []
    for query, wanted, index in zip(queries, exact, itself, strict=True):
        start = time.perf_counter()
        matches = search(query)
        seconds.append(time.perf_counter() - start)
        shares.append(len(wanted & {int(match) for match in matches if match != index}) / MATCHES)
    return f"{1000 * float(np.median(seconds)):.2f} | {100 * float(np.mean(shares)):.1f} %"


def graph_rows(index: ImageIndex, measure: Callable[[Search], str]) -> list[str]:
    """Return the rows of HNSW with 8-bit codes, whose candidates are compared exactly, too."""
    faiss = load_faiss()
    graph = faiss.IndexHNSWSQ(WIDTH, faiss.ScalarQuantizer.QT_8bit, EDGES, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = CONSTRUCTION
    rows = index.rows[:]

    def build() -> None:
        graph.train(rows)
        graph.add(rows)

    seconds, _ = timed(build)

    def search(query: np.ndarray) -> np.ndarray:
        candidates = graph.search(query[np.newaxis], max(graph.hnsw.efSearch, MATCHES + 1))[1][0]
        candidates = candidates[candidates >= 0]
        return candidates[np.argsort(-(rows[candidates] @ query))[: MATCHES + 1]]

    lines = []
    for breadth in BREADTHS:
        graph.hnsw.efSearch = breadth
        lines.append(f"HNSW, {breadth} candidates | {seconds:.0f} | {measure(search)}")
    return lines


def measure_size(folder: Path, size: int) -> list[str]:
    """Return the rows of the table for an index of a size."""
    index = write_images(folder, keys_of(size), size, 0)
    build_seconds, _ = timed(lambda: update_approximate(folder, index.keys, index.rows, index.settings))
    itself = np.sort(np.random.default_rng(3).choice(size, QUERIES, replace=False))
    queries = index.rows[itself]
    exact = []
    for query, number in zip(queries, itself, strict=True):
        matches = [match for match, _ in index.nearest(query, MATCHES + 1, exact=True)]
        exact.append({match for match in matches if match != number})

    def measure(search: Search) -> str:
        return measured(search, queries, exact, itself)

    def nearest(query: np.ndarray, exactly: bool = False) -> list[int]:
        return [match for match, _ in index.nearest(query, MATCHES + 1, exact=exactly)]

    lines = [f"exact |  | {measure(lambda query: nearest(query, True))}"]
    approximate = index.approximate
    assert approximate is not None
    chosen, lists = approximate.record["probes"], approximate.record["lists"]
    for probes in sorted({*PROBES, chosen}):
        if probes <= lists:
            approximate.record["probes"] = probes
            mark = ", chosen" if probes == chosen else ""
            lines.append(f"{probes} of {lists} lists{mark} | {build_seconds:.0f} | {measure(nearest)}")
    if size <= LARGEST_GRAPH:
        lines += graph_rows(index, measure)
    gone = size // 100
    keys = [*keys_of(size)[gone:], *(f"new{number}.jpg\0" for number in range(gone))]
    changed = write_images(folder, keys, gone, 1)
    seconds, _ = timed(lambda: update_approximate(folder, changed.keys, changed.rows, changed.settings))
    lines.append(f"update: 1 % came, 1 % went | {seconds:.0f} |  | ")
    return lines


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(ApproximateOptions, __doc__.splitlines()[0])
    print(machine(), end="\n\n", flush=True)
    print("| images | search | build, s | query, ms | recall@10 |")
    print("|---|---|---|---|---|", flush=True)
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            for line in measure_size(Path(folder), size):
                print(f"| {size:,} | {line} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
