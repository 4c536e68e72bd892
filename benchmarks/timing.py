"""Time functions in turn, so that noise of the machine affects all of them, and measure memory."""

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
"""Seconds between two readings of this process's memory."""


def time_in_turn(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median seconds of each function over some rounds, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(rounds + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if round_number:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds of one call, and its result."""
    start = time.perf_counter()
    result = function()
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
    """Return the peak memory of this process so far, including mapped files, in MB.

    getrusage would not do: it starts a process with the peak of its parent.

    Raises:
        OSError: the system is not Linux.
    """
    return _status("VmHWM")


@contextmanager
def anonymous_peak() -> Iterator[Callable[[], float]]:
    """Watch the memory of this process without mapped files; yield a function that returns its peak in MB.

    The kernel keeps a peak only of all resident memory. It includes mapped files, whose pages belong to the
    page cache and are freed when needed. So a thread reads the current value every few milliseconds.

    Raises:
        OSError: the system is not Linux.
    """
    peak = _status("RssAnon")
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(SAMPLED):
            peak = max(peak, _status("RssAnon"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: max(peak, _status("RssAnon"))
    finally:
        done.set()
        thread.join()


def machine() -> str:
    """Return one line that describes this machine and its load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    )


def _status(field: str) -> float:
    """Return one field of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no field {field}")
