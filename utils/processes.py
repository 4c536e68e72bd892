"""Several processes that work together, as torchrun starts them; one process is the case of one rank."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import LostProcessError, UserError
from utils.program.outside_errors import outside_error
from utils.text import digest_of_names

Item = TypeVar("Item")

JOINT_OPERATION_TIMEOUT = timedelta(days=2)
"""How long a process waits for the others, whose parts may take longer; torchrun ends it when one dies."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a job, seen from one of them."""

    index: int
    """Index of this process, from 0."""
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.index == 0

    def share(self, items: range) -> range:
        """The part of some numbered items that is this process's: every count-th."""
        return items[self.index :: self.count]

    def add_up(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor by its sum over all processes, in place."""
        if self.count > 1:
            with detect_lost_process():
                dist.all_reduce(tensor)
        return tensor

    def add_up_array(self, array: np.ndarray) -> np.ndarray:
        """The sum of an array over all processes."""
        if self.count == 1:
            return array
        return self.add_up(torch.from_numpy(array).to(self.device)).cpu().numpy()

    def check_same_names(self, names: Sequence[str], what: str) -> None:
        """Checks that all processes have the same names in the same order: they share them by place.

        Raises:
            UserError: they do not.
        """
        if len(set(self.gather([digest_of_names(names)]))) > 1:
            raise UserError(f"the processes do not see the same {what}: their computers' folders differ")

    def gather(self, items: list[Item]) -> list[Item]:
        """All processes' items, those of the first process first."""
        if self.count == 1:
            return items
        parts: list[list[Item]] = [[] for _ in range(self.count)]
        with detect_lost_process():
            dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]


def process_device(name: str) -> str:
    """The device of this process: under torchrun, each has a GPU of its own where GPUs are used."""
    if "LOCAL_RANK" in os.environ and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def log_level() -> int:
    """What this process logs: notes and progress if it is the first of those that torchrun started."""
    return logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """Joins the processes that torchrun started, over nccl on GPUs and gloo on CPUs; parts at the end."""
    world = int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1
    if world == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with detect_lost_process():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=JOINT_OPERATION_TIMEOUT)
    try:
        yield Processes(dist.get_rank(), world, device)
    finally:
        with suppress(RuntimeError):  # of connections that have gone
            dist.destroy_process_group()


@contextmanager
def detect_lost_process() -> Iterator[None]:
    """Turn the failure of a joint operation into a LostProcessError.

    A process that fails ends its connections, and the others learn of it here.
    """
    try:
        yield
    except RuntimeError as error:
        if line := outside_error(error):
            raise UserError(line) from error
        reason = str(error).strip().splitlines()[0]
        raise LostProcessError(
            f"another process has ended or cannot be reached; its messages say why ({reason})"
        ) from error
