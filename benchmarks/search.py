"""Cost of search against the size of the database: a store on disk, exact search in it, and FAISS.

The descriptors are drawn: 1000 centres, and around each, at distances between 0 and 1, its images. They have
2048 dimensions, are float16, and lie in a store as the evaluation writes it. The limit of exact search is one
float32 matrix product of the same size, all of it in memory.

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
from utils.search.exact import exact_search

WIDTH = 2048
CENTRES = 1000
QUERIES = 70
FOUND = 100
WRITTEN = SHARD_ROWS
"""Descriptors that are drawn and written at a time."""

SIZES = (1000, 10_000, 100_000)
APPROXIMATE_UP_TO = 100_000


@options_class
class SearchOptions:
    """Options of the measurement."""

    title = "measurement"

    sizes: tuple[int, ...] = option(
        default=SIZES, help="of the databases searched", valid=COUNTS, separate=True
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
    """Seconds and the most memory, in MB without the pages of files, of opening a store and searching it."""

    open_seconds: float
    verified_seconds: float
    to_open: float
    to_search: float


class Found(NamedTuple):
    """Seconds to build and to search an index of FAISS, and its recall against exact search."""

    build_seconds: float
    search_seconds: float
    recalls: list[float]


def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """Descriptors around centres that are always the same, (count, WIDTH) float32 of length 1."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, WIDTH), np.float32)
    noise = rng.standard_normal((count, WIDTH), np.float32)
    noise *= rng.uniform(0, 1, (count, 1)).astype(np.float32)
    noise += centres[rng.integers(0, CENTRES, count)]
    return noise / np.linalg.norm(noise, axis=1, keepdims=True)


def query_descriptors() -> np.ndarray:
    """The queries, (QUERIES, WIDTH) float32."""
    return drawn(np.random.default_rng(1), QUERIES)


def keys_of(size: int) -> list[str]:
    """Keys of the length that images' have: name, bytes, nanoseconds, no box."""
    names = (f"landmark_{number:09d}.jpg" for number in range(size))
    return [f"{name}\0{100_000 + number}\01700000000{number:09d}\0" for number, name in enumerate(names)]


def write_store(folder: Path, size: int) -> float:
    """Fills a store, or fills up what a killed run left of it; seconds of writing, drawing left out."""
    store = open_store(folder, {"size": size}, precision="float16", verify=False)
    keys, seconds = keys_of(size), 0.0
    for start in range(len(store), size, WRITTEN):
        behind = min(start + WRITTEN, size)
        rows = drawn(np.random.default_rng([2, start]), behind - start)
        seconds += timed(lambda: store.add(keys[start:behind], rows))[0]  # noqa: B023  called at once
    return seconds + timed(store.flush)[0]


def rows_of(folder: Path, size: int, verify: bool) -> StoredRows:
    """Opens a store and looks up all its keys."""
    store = open_store(folder, {"size": size}, precision="float16", verify=verify)
    return store.rows(keys_of(size))


def memory(folder: Path, size: int) -> Memory:
    """Opens a store and searches it once; to be called in a fresh process."""
    queries = query_descriptors()
    with anonymous_peak() as peak:
        open_seconds, database = timed(lambda: rows_of(folder, size, verify=False))
        to_open = peak()
        exact_search(queries, database, FOUND)
        to_search = peak()
    verified_seconds, _ = timed(lambda: rows_of(folder, size, verify=True))
    return Memory(open_seconds, verified_seconds, to_open, to_search)


def search_and_limit(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Seconds of the search, and of its limit, which holds the whole database in memory as float32."""
    queries, database = query_descriptors(), rows_of(folder, size, verify=False)
    whole = torch.empty(size, WIDTH)
    for places, rows in database.blocks():
        whole[torch.from_numpy(places)] = torch.from_numpy(rows).float()
    left = torch.from_numpy(queries)
    ways = {"search": lambda: exact_search(queries, database, FOUND), "limit": lambda: left @ whole.T}
    return time_in_turn(ways, rounds)


def approximate(folder: Path, size: int, kind: SearchKind) -> Found:
    """Builds an index of FAISS's and searches it."""
    queries, database = query_descriptors(), rows_of(folder, size, verify=False)
    exact, _ = exact_search(queries, database, FOUND)
    build_seconds, index = timed(lambda: build_index(kind, database))
    search_seconds, (_, places) = timed(lambda: index.search(queries, FOUND))
    return Found(build_seconds, search_seconds, [recall(places[:, :k], exact[:, :k]) for k in RECALL_AT])


def report(options: SearchOptions) -> None:
    """Print the tables."""
    sizes, rounds, folder = options.sizes, options.rounds, options.folder
    with tempfile.TemporaryDirectory() as temporary:
        stores = {size: (folder or Path(temporary)) / str(size) for size in sizes}
        print(f"{QUERIES} queries, their first {FOUND} of descriptors of {WIDTH} x float16 on disk:")
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
        print("Memory is the process's peak without pages of files, whichever of them the page cache has.")
        report_approximate(
            {size: store for size, store in stores.items() if size <= options.approximate_up_to}
        )


def report_approximate(stores: Mapping[int, Path]) -> None:
    """Prints what FAISS, where it is installed, finds in stores of some sizes."""
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
            # too few vectors to train the codes on
            if kind == "faiss-ivfpq" and size < CENTROIDS * VECTORS_PER_CENTROID:
                continue
            found = alone(approximate, store, size, kind)
            recalls = " | ".join(f"{100 * value:.1f} %" for value in found.recalls)
            print(
                f"| {size:,} | {kind} | {found.build_seconds:.1f} | {found.search_seconds:.3f} | {recalls} |",
                flush=True,
            )
    print()
    print("Around a centre the drawn descriptors lie alike in all directions, which is the worst for codes.")


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(SearchOptions, __doc__.splitlines()[0])
    print(machine())
    print()
    report(options)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
