"""Cost of an evaluation's search: ranks of labelled images by counting, and neighbours of all images.

The descriptors are those of `benchmarks.search`. The search is compared with one float32 matrix product of
the same size in memory, called its limit, by CPU time: elapsed time on a shared machine measures its load.
Each query has 100 labelled images that are its most similar ones, and in a second search 5 more, drawn from
all images: most of these lie among so many nearly as similar images that float32 does not decide their rank.

    python -m benchmarks.evaluation_search --sizes 100000 1000000 --graph-size 105000
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.search import NEAREST, QUERIES, WIDTH, query_descriptors, rows_of, write_store
from benchmarks.timing import alone, anonymous_peak, machine, time_in_turn
from utils.descriptors.rows import StoredRows
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.program.run_command import run_command
from utils.search.database_augmentation import augment_database
from utils.search.diffusion import neighbour_graph
from utils.search.exact import search_rows, top_rows

DRAWN = 5
"""Labelled images per query that are drawn from all images."""

NEIGHBOURS = 10
EXPANSION = 5
"""First images per query that query expansion needs."""

LIMIT, NEAR, DRAWN_TOO = "limit", "near", "drawn too"
"""The measured functions: the product and the two searches."""


@options_class
class EvaluationSearchOptions:
    """Options of the measurement."""

    title = "measurement"

    sizes: tuple[int, ...] = option(
        default=(100_000,), help="sizes of the databases searched", valid=COUNTS, separate=True
    )
    rounds: int = option(default=3, help="runs of each search and of its limit", valid=COUNTS)
    graph_size: int = option(
        default=0,
        help="size of the database whose neighbours are searched; 0 for none",
        valid=Range(0, 10**9),
    )
    folder: Path | None = option(
        default=None, help="keeps the stores, 4 KB per descriptor, for the next time"
    )


class Cost(NamedTuple):
    """Elapsed and CPU seconds of a job, and its peak memory in MB without mapped files."""

    elapsed: float
    cpu: float
    memory: float


def labels_of(first: np.ndarray, size: int, drawn: int) -> list[np.ndarray]:
    """Return the labelled images per query: its first images and some drawn from all images."""
    rng = np.random.default_rng(3)
    return [np.union1d(row, rng.integers(0, size, drawn)) for row in first]


def searches(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Return the CPU seconds of the searches and of the products."""
    queries, database = query_descriptors(), rows_of(folder, size, verify=False)
    first, _ = top_rows(queries, database, NEAREST)
    in_memory = torch.empty(size, WIDTH)
    for indices, rows in database.blocks():
        in_memory[torch.from_numpy(indices)] = torch.from_numpy(rows).float()
    left = torch.from_numpy(queries)
    labels = {NEAR: labels_of(first, size, 0), DRAWN_TOO: labels_of(first, size, DRAWN)}
    functions = {
        LIMIT: lambda: left @ in_memory.T,
        NEAR: lambda: search_rows(queries, database, EXPANSION, labels[NEAR]),
        DRAWN_TOO: lambda: search_rows(queries, database, EXPANSION, labels[DRAWN_TOO]),
    }
    return time_in_turn(functions, rounds, time.process_time)


def search_memory(folder: Path, size: int) -> float:
    """Return the peak memory in MB of opening a store and searching it; call it in a fresh process."""
    with anonymous_peak() as peak:
        database = rows_of(folder, size, verify=False)
        queries = query_descriptors()
        first, _ = top_rows(queries, database, NEAREST)
        search_rows(queries, database, EXPANSION, labels_of(first, size, DRAWN))
        return peak()


def cost_of(job: str, folder: Path, size: int) -> Cost:
    """Return the cost of a job on all images, "graph" or "augmentation"; call it in a fresh process."""
    database: StoredRows = rows_of(folder, size, verify=False)
    with anonymous_peak() as peak:
        elapsed, cpu = time.perf_counter(), time.process_time()
        if job == "graph":
            neighbour_graph(database, NEIGHBOURS)
        else:
            augment_database(database, NEIGHBOURS)
        return Cost(time.perf_counter() - elapsed, time.process_time() - cpu, peak())


def product_cost(folder: Path, size: int) -> float:
    """Return the CPU seconds of a float32 product of all rows with all rows, from a part of it."""
    part = torch.from_numpy(rows_of(folder, size, verify=False)[: min(size, 10_000)])
    queries = part[:2048]
    seconds = time_in_turn({LIMIT: lambda: queries @ part.T}, 3, time.process_time)[LIMIT]
    return seconds * size / len(queries) * size / len(part)


def report(options: EvaluationSearchOptions) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print(f"{QUERIES} queries, ranks of {NEAREST} labelled images each, {WIDTH} x float16 on disk:")
        print()
        print(
            "| descriptors | float32 product in memory, CPU s | search, CPU s | rate of the product "
            f"| with {DRAWN} labelled images more per query | rate | memory, MB |"
        )
        print("|---|---|---|---|---|---|---|")
        for size in options.sizes:
            alone(write_store, folder / str(size), size)
            seconds = alone(searches, folder / str(size), size, options.rounds)
            memory = alone(search_memory, folder / str(size), size)
            near, drawn = (100 * seconds[LIMIT] / seconds[name] for name in (NEAR, DRAWN_TOO))
            print(
                f"| {size:,} | {seconds[LIMIT]:.2f} | {seconds[NEAR]:.2f} | {near:.0f} % | "
                f"{seconds[DRAWN_TOO]:.2f} | {drawn:.0f} % | {memory:.0f} |",
                flush=True,
            )
        if options.graph_size:
            report_graph(folder / str(options.graph_size), options.graph_size)


def report_graph(folder: Path, size: int) -> None:
    """Print the costs of the neighbour graph and of database augmentation."""
    alone(write_store, folder, size)
    print()
    print(f"| {NEIGHBOURS} neighbours of {size:,} images | elapsed, s | CPU s | memory, MB |")
    print("|---|---|---|---|")
    print(f"| float32 product of all with all, from a part | | {alone(product_cost, folder, size):.0f} | |")
    for job in ("graph", "augmentation"):
        cost = alone(cost_of, job, folder, size)
        print(f"| {job} | {cost.elapsed:.0f} | {cost.cpu:.0f} | {cost.memory:.0f} |", flush=True)


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(EvaluationSearchOptions, __doc__.splitlines()[0])
    print(machine())
    print()
    report(options)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
