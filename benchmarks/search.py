"""Cost of search by size of the database: a store on disk, exact search in it, and FAISS.

The descriptors are random: 1000 centres, and images at distances between 0 and 1 from one of them. They have
2048 dimensions in float16 and are stored as the evaluation stores them. Exact search is compared with one
float32 matrix product of the same size in memory, called its limit.

    python -m benchmarks.search --sizes 1000 10000 100000 1000000
"""

import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.timing import alone, anonymous_peak, machine, time_in_turn, timed
from utils.descriptors.rows import StoredRows
from utils.descriptors.store import SHARD_ROWS, open_store
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS, SearchKind
from utils.program.run_command import run_command
from utils.search.approximate import CENTROIDS, RECALL_AT, VECTORS_PER_CENTROID, build_index, recall
from utils.search.exact import top_rows

WIDTH = 2048
CENTRES = 1000
QUERIES = 70
NEAREST = 100
WRITTEN = SHARD_ROWS
"""Number of descriptors drawn and written at a time."""

SIZES = (1000, 10_000, 100_000)
APPROXIMATE_UP_TO = 100_000


@options_class
class SearchOptions:
    """Options of the measurement."""

    title = "measurement"

    sizes: tuple[int, ...] = option(
        default=SIZES, help="sizes of the databases searched", valid=COUNTS, separate=True
    )
    rounds: int = option(default=3, help="runs of the search and of its limit", valid=COUNTS)
    folder: Path | None = option(
        default=None, help="keeps the stores, 4 KB per descriptor, for the next time"
    )
    approximate_up_to: int = option(
        default=APPROXIMATE_UP_TO,
        help="largest size that FAISS indexes, whose training is slow",
        valid=Range(0, 10**9),
    )


class Memory(NamedTuple):
    """Seconds to open a store, and peak memory in MB, without mapped files, of opening and searching it."""

    open_seconds: float
    verified_seconds: float
    to_open: float
    to_search: float


class Approximate(NamedTuple):
    """Seconds to build and to search a FAISS index, and its recall of the exact results."""

    build_seconds: float
    search_seconds: float
    recalls: list[float]


def drawn(rng: np.random.Generator, count: int, width: int = WIDTH) -> np.ndarray:
    """Return random descriptors of length 1, (count, width) float32, around fixed centres."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, width), np.float32)
    noise = rng.standard_normal((count, width), np.float32)
    noise *= rng.uniform(0, 1, (count, 1)).astype(np.float32)
    noise += centres[rng.integers(0, CENTRES, count)]
    return noise / np.linalg.norm(noise, axis=1, keepdims=True)


def query_descriptors(width: int = WIDTH) -> np.ndarray:
    """Return the queries, (QUERIES, width) float32."""
    return drawn(np.random.default_rng(1), QUERIES, width)


def keys_of(size: int) -> list[str]:
    """Return keys in the form of image keys: name, size in bytes, nanoseconds, no box."""
    names = (f"landmark_{number:09d}.jpg" for number in range(size))
    return [f"{name}\0{100_000 + number}\01700000000{number:09d}\0" for number, name in enumerate(names)]


def write_store(folder: Path, size: int, width: int = WIDTH) -> float:
    """Fill a store, or complete the one of an interrupted run, and return the seconds of writing alone."""
    store = open_store(folder, {"size": size}, precision="float16", verify=False)
    keys, seconds = keys_of(size), 0.0
    for start in range(len(store), size, WRITTEN):
        stop = min(start + WRITTEN, size)
        rows = drawn(np.random.default_rng([2, start]), stop - start, width)
        seconds += timed(lambda: store.add(keys[start:stop], rows))[0]  # noqa: B023  called at once
    return seconds + timed(store.flush)[0]


def rows_of(folder: Path, size: int, verify: bool) -> StoredRows:
    """Open a store and return the rows of all its keys."""
    store = open_store(folder, {"size": size}, precision="float16", verify=verify)
    return store.rows(keys_of(size))


def memory(folder: Path, size: int) -> Memory:
    """Measure the opening of a store and one search; call it in a fresh process."""
    queries = query_descriptors()
    with anonymous_peak() as peak:
        open_seconds, database = timed(lambda: rows_of(folder, size, verify=False))
        to_open = peak()
        top_rows(queries, database, NEAREST)
        to_search = peak()
    verified_seconds, _ = timed(lambda: rows_of(folder, size, verify=True))
    return Memory(open_seconds, verified_seconds, to_open, to_search)


def search_and_limit(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Return the seconds of the search and of its limit, which has the full database in memory as float32."""
    queries, database = query_descriptors(), rows_of(folder, size, verify=False)
    in_memory = torch.empty(size, WIDTH)
    for indices, rows in database.blocks():
        in_memory[torch.from_numpy(indices)] = torch.from_numpy(rows).float()
    left = torch.from_numpy(queries)
    functions = {
        "search": lambda: top_rows(queries, database, NEAREST),
        "limit": lambda: left @ in_memory.T,
    }
    return time_in_turn(functions, rounds)


def approximate(folder: Path, size: int, kind: SearchKind) -> Approximate:
    """Build a FAISS index and search it."""
    queries, database = query_descriptors(), rows_of(folder, size, verify=False)
    exact, _ = top_rows(queries, database, NEAREST)
    build_seconds, index = timed(lambda: build_index(kind, database))
    search_seconds, (_, indices) = timed(lambda: index.search(queries, NEAREST))
    recalls = [recall(indices[:, :k], exact[:, :k]) for k in RECALL_AT]
    return Approximate(build_seconds, search_seconds, recalls)


def report(options: SearchOptions) -> None:
    """Print the tables."""
    sizes, rounds, folder = options.sizes, options.rounds, options.folder
    with tempfile.TemporaryDirectory() as temporary:
        stores = {size: (folder or Path(temporary)) / str(size) for size in sizes}
        print(f"{QUERIES} queries, their first {NEAREST} of descriptors of {WIDTH} x float16 on disk:")
        print()
        print(
            "| descriptors | write, s | open, s | verified, s | exact search, s | limit, s "
            "| share of its rate | on disk, MB | memory to open, MB | to search, MB |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for size, store in stores.items():
            write_seconds = alone(write_store, store, size)
            held = alone(memory, store, size)
            seconds = alone(search_and_limit, store, size, rounds)
            on_disk = sum(path.stat().st_size for path in store.iterdir()) / 2**20
            print(
                f"| {size:,} | {write_seconds:.1f} | {held.open_seconds:.2f} | {held.verified_seconds:.2f} | "
                f"{seconds['search']:.3f} | {seconds['limit']:.3f} | "
                f"{100 * seconds['limit'] / seconds['search']:.0f} % | {on_disk:.0f} | {held.to_open:.0f} | "
                f"{held.to_search:.0f} |",
                flush=True,
            )
        print()
        print("Memory is the peak of the process without mapped files.")
        report_approximate(
            {size: store for size, store in stores.items() if size <= options.approximate_up_to}
        )


def report_approximate(stores: Mapping[int, Path]) -> None:
    """Print times and recall of FAISS, if installed, in stores of some sizes."""
    if not stores:
        return
    print()
    if importlib.util.find_spec("faiss") is None:
        print("FAISS is not installed: no approximate search.")
        return
    headings = ["descriptors", "index", "build, s", "search, s", *(f"recall@{k}" for k in RECALL_AT)]
    print(f"| {' | '.join(headings)} |")
    print("|" + "---|" * len(headings))
    kinds: tuple[SearchKind, ...] = ("faiss-flat", "faiss-ivfpq")
    for size, store in stores.items():
        for kind in kinds:
            # too few vectors to train the codes
            if kind == "faiss-ivfpq" and size < CENTROIDS * VECTORS_PER_CENTROID:
                continue
            result = alone(approximate, store, size, kind)
            recalls = " | ".join(f"{100 * value:.1f} %" for value in result.recalls)
            print(
                f"| {size:,} | {kind} | {result.build_seconds:.1f} | {result.search_seconds:.3f} | "
                f"{recalls} |",
                flush=True,
            )
    print()
    print("Descriptors spread alike in all directions around a centre: the hardest case for codes.")


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(SearchOptions, __doc__.splitlines()[0])
    print(machine())
    print()
    report(options)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
