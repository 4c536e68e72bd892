"""Processes of torchrun: shared work and summed results. A single process works the same without torchrun."""

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
"""Longest wait for slower processes. If a process dies, torchrun ends the remaining ones before that."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a job, from the view of one process."""

    index: int
    """Index of this process, from 0."""
    count: int
    """Number of processes."""
    device: torch.device
    """Device of this process."""

    @property
    def leads(self) -> bool:
        """True if this process writes the files and prints the results."""
        return self.index == 0

    def share(self, items: range) -> range:
        """Return the items of this process: every `count`-th item from `index` on."""
        return items[self.index :: self.count]

    def add_up(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place, and return it."""
        if self.count > 1:
            with detect_lost_process():
                dist.all_reduce(tensor)
        return tensor

    def add_up_array(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of an array over all processes."""
        if self.count == 1:
            return array
        return self.add_up(torch.from_numpy(array).to(self.device)).cpu().numpy()

    def check_same_names(self, names: Sequence[str], title: str) -> None:
        """Check that all processes have the same names in the same order, since they share them by index.

        Args:
            names: names of the items to share.
            title: what the items are, for the error message.

        Raises:
            UserError: the names differ.
        """
        if len(set(self.gather([digest_of_names(names)]))) > 1:
            raise UserError(
                f"the processes do not see the same {title}: compare the folders of their computers"
            )

    def gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes, in the order of the processes."""
        if self.count == 1:
            return items
        parts: list[list[Item]] = [[] for _ in range(self.count)]
        with detect_lost_process():
            dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def from_first(self, item: Item) -> Item:
        """Return the item of the first process in all processes; further processes pass any item."""
        items = [item]
        if self.count > 1:
            with detect_lost_process():
                dist.broadcast_object_list(items, device=self.device)
        return items[0]


ALONE = Processes(0, 1, torch.device("cpu"))
"""A single process that computes on the CPU."""


def process_device(name: str) -> str:
    """Return the name of the device of this process.

    Under torchrun, each process gets a separate GPU if GPUs are used.

    Args:
        name: name of a device as for `choose_device`.
    """
    if "LOCAL_RANK" in os.environ and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def log_level() -> int:
    """Return the logging level: INFO in the first process, ERROR in all further processes."""
    return logging.INFO if is_first_process() else logging.ERROR


def is_first_process() -> bool:
    """Return whether this is the first process of torchrun or the only process, without joining them."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes of torchrun, over NCCL on GPUs and Gloo on CPUs, until the end of the block."""
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
        with suppress(RuntimeError):  # connections are lost
            dist.destroy_process_group()


@contextmanager
def detect_lost_process() -> Iterator[None]:
    """Convert a failed joint operation to a LostProcessError.

    A process that fails closes its connections, and then joint operations fail in the remaining processes.

    Raises:
        LostProcessError: a process has ended or cannot be reached.
        UserError: the operation failed for a reason outside the program.
    """
    try:
        yield
    except RuntimeError as error:
        if line := outside_error(error):
            raise UserError(line) from error
        reason = str(error).strip().splitlines()[0]
        raise LostProcessError(
            f"another process has ended or cannot be reached; see its messages ({reason})"
        ) from error
