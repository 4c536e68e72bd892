"""Measurement of the seconds that the stages of a job take."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the duration of a `with` block to the seconds of a stage.

    Args:
        seconds: seconds per stage; changed in place.
        stage: name of the stage.
    """
    start = time.perf_counter()
    yield
    add_seconds(seconds, {stage: time.perf_counter() - start})


def add_seconds(seconds: dict[str, float], more: Mapping[str, float]) -> None:
    """Add the seconds of stages, in place, rounded to milliseconds."""
    for stage, spent in more.items():
        seconds[stage] = round(seconds.get(stage, 0.0) + spent, 3)
