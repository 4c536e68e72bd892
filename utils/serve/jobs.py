"""Threads that compute for the page: searches first, then images, then heat maps."""

import asyncio
import itertools
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

MOST_THREADS = 4
"""Maximum number of jobs that run at the same time."""

POLL = 0.25
"""Seconds between two checks whether a job is still wanted."""

STOP_SECONDS = 5.0
"""Maximum number of seconds to wait for running jobs at the end."""


class Priority(IntEnum):
    """Order in which waiting jobs start, the smallest first."""

    SEARCH = 0
    IMAGE = 1
    HEAT_MAP = 2
    END = 3


class UnwantedError(Exception):
    """Raised for a job whose result nobody waits for any more."""


class Jobs:
    """Threads that run jobs by priority. They share torch's threads, so they do not slow one another down."""

    def __init__(self) -> None:
        cores = torch.get_num_threads()
        count = min(cores, MOST_THREADS)
        self._numbers = itertools.count()
        self._waiting: queue.PriorityQueue[tuple[int, int, Callable[[], None] | None]] = queue.PriorityQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(cores // count,), daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(
        self,
        priority: Priority,
        function: Callable[..., Result],
        *arguments: Any,  # noqa: ANN401  of any function
        unwanted: Callable[[], Awaitable[bool]] | None = None,
    ) -> Result:
        """Run a function in a thread and return its result.

        Args:
            priority: the priority of the job.
            function: the function.
            arguments: its arguments.
            unwanted: returns True once nobody waits for the result; the job is then not started.

        Raises:
            UnwantedError: the job was not started, since it was not wanted.
            Exception: the exception that the function raised.
        """
        future: Future[Result] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as error:
                    future.set_exception(error)

        self._waiting.put((priority, next(self._numbers), job))
        result = asyncio.wrap_future(future)
        while unwanted is not None and not (await asyncio.wait({result}, timeout=POLL))[0]:
            if await unwanted() and future.cancel():
                raise UnwantedError
        return await result

    def close(self) -> None:
        """Wait for the jobs that run, and drop the ones that wait."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put((Priority.END, next(self._numbers), None))
        for thread in self._threads:
            thread.join(STOP_SECONDS)

    def _work(self, torch_threads: int) -> None:
        torch.set_num_threads(torch_threads)
        while (job := self._waiting.get()[2]) is not None:
            job()
