"""Cost of a search that processes share: seconds and the memory of each process.

The descriptors are those of `benchmarks.search`, with a width to choose. The first process opens the store
and sends the positions of the rows to the other processes, as in an evaluation.

    python -m benchmarks.shared_search --size 1000000 --width 2048 --folder stores
    torchrun --nproc-per-node 2 -m benchmarks.shared_search --size 1000000 --width 2048 --folder stores
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.evaluation_search import DRAWN, EXPANSION, labels_of
from benchmarks.search import NEAREST, QUERIES, WIDTH, keys_of, query_descriptors, write_store
from benchmarks.timing import anonymous_peak, machine
from utils.descriptors.shared_store import share_stored_rows
from utils.descriptors.store import DescriptorStore, open_store
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.processes import Processes, join_processes
from utils.program.run_command import run_command
from utils.search.exact import search_rows, top_rows

CPU = torch.device("cpu")


@options_class
class SharedSearchOptions:
    """Options of the measurement."""

    title = "measurement"

    size: int = option(default=100_000, help="number of descriptors", valid=COUNTS)
    width: int = option(default=WIDTH, help="dimensions of a descriptor", valid=COUNTS)
    folder: Path = option(default=Path("stores"), help="keeps the store for the next time")


def report(options: SharedSearchOptions, processes: Processes) -> None:
    """Search, and print one line per process."""
    folder = options.folder / f"{options.size}x{options.width}"
    if processes.leads:
        write_store(folder, options.size, options.width)
    processes.gather([])
    queries = query_descriptors(options.width)
    with anonymous_peak() as peak:
        keys: list[str] = []
        store = DescriptorStore(folder, "float16")
        if processes.leads:
            keys = keys_of(options.size)
            store = open_store(folder, {"size": options.size}, precision="float16", verify=False)
        database = share_stored_rows(store, keys, processes)
        del store, keys
        to_open = peak()
    with anonymous_peak() as peak:
        before = peak()
        first, _ = top_rows(queries, database, NEAREST, processes=processes)
        labelled = labels_of(first, options.size, DRAWN)
        search_rows(queries, database, EXPANSION, labelled, processes=processes)
        to_search = peak()
    # Reading the memory takes computing time, so that the search is timed separately.
    start, cpu = time.perf_counter(), time.process_time()
    found = search_rows(queries, database, EXPANSION, labelled, processes=processes)
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    total = int(np.concatenate(found.ranks).sum())
    memory = f"{to_open:.0f} | {before:.0f} | {to_search:.0f}"
    lines = processes.gather([f"| {processes.index} | {elapsed:.1f} | {cpu:.1f} | {memory} |"])
    if processes.leads:
        print(f"{machine()}\n")
        print(
            f"{QUERIES} queries, {options.size:,} descriptors of {options.width} x float16, "
            f"{processes.count} processes (sum of ranks {total}):\n"
        )
        print("| process | search, s | CPU s | memory to open, MB | kept, MB | to search, MB |")
        print("|---|---|---|---|---|---|")
        print("\n".join(lines))


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(SharedSearchOptions, __doc__.splitlines()[0])
    with join_processes(CPU) as processes:
        report(options, processes)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
