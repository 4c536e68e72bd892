"""Timing of several ways to do the same thing, in turn, so that a noisy machine is noisy for all of them."""

import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

SAMPLED = 0.005
"""Seconds between two looks at this process's memory."""


def time_in_turn(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median seconds of each way over some rounds, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if round_number:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def timed(way: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that a single call takes, and what it returns."""
    start = time.perf_counter()
    result = way()
    return time.perf_counter() - start, result


def alone(function: Callable[..., Result], *arguments: object) -> Result:
    """Return the result of a function in a fresh process, which measures the memory of this call alone."""
    return next(each_alone(function, [arguments]))


def each_alone(function: Callable[..., Result], calls: Sequence[tuple], at_once: int = 1) -> Iterator[Result]:
    """Yield the result of a function for each tuple of arguments, each in a fresh process, some at once."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=spawn, max_tasks_per_child=1) as pool:
        yield from pool.map(function, *zip(*calls, strict=True))


def peak_memory() -> float:
    """The most memory that this process has held so far, files mapped into it included, in MB.

    Not what getrusage says: there, a process begins with the peak of the one that started it.

    Raises:
        OSError: the system is not Linux.
    """
    return _status("VmHWM")


@contextmanager
def anonymous_peak() -> Iterator[Callable[[], float]]:
    """Watches the memory of this process that is no page of a file, in MB; what it yields tells its peak.

    The kernel keeps a peak of all resident memory alone, in which mapped files count, though their pages
    are the page cache's and go when others need them. So a thread looks every few milliseconds.

    Raises:
        OSError: the system is not Linux.
    """
    peak = _status("RssAnon")
    done = threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(SAMPLED):
            peak = max(peak, _status("RssAnon"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: max(peak, _status("RssAnon"))
    finally:
        done.set()
        thread.join()


def machine() -> str:
    """One line about where the figures come from, and how busy that is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    )


def _status(entry: str) -> float:
    """An entry of what the kernel tells of this process's memory, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status does not tell {entry}")
