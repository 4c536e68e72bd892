"""Items of a data set, made by worker processes that can be killed and need no shared memory.

Items must hold no tensors: torch would pass those through /dev/shm, of which containers have 64 MB, with a
file open for each. Arrays go through pipes.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, cast

from torch.utils.data import DataLoader, Dataset

from utils.errors import UserError
from utils.program.outside_errors import NO_SHARED_MEMORY, is_shortage, outside_error
from utils.program.signals import ignore_interrupts, interrupts_blocked


class _Failure(NamedTuple):
    """The line of a UserError, to which torch would add a worker's traceback."""

    line: str


class _ErrorsAsItems(Dataset):
    """A data set whose UserErrors are items."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, number: int) -> object:
        try:
            return self.dataset[number]
        except UserError as error:
            return _Failure(str(error))


def worker_items(
    dataset: Dataset,
    numbers: Iterable[int] | Iterable[Sequence[int]],
    collate: Callable[[list], object] | None,
    workers: int,
    prefetch: int,
) -> Iterator:
    """Yield items of a data set in order.

    Args:
        dataset: makes an item of a number; the item, and what `collate` makes of several, can be pickled.
        numbers: the number of each item or, with `collate`, the numbers of each batch.
        collate: makes one item of a batch's items; None where there are no batches.
        workers: number of processes; 0 for the calling one.
        prefetch: number of items that each worker makes in advance.

    Yields:
        The items.

    Raises:
        UserError: the data set raised one, or a worker was killed or cannot be started.
    """
    # torch warns of more workers than cores, which a user may want: a network's disk is waited for.
    warnings.filterwarnings("ignore", message=r"This DataLoader will create \d+ worker processes")
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=None if collate is None else 1,
        sampler=numbers if collate is None else None,
        batch_sampler=None if collate is None else cast(Iterable[list[int]], numbers),
        num_workers=workers,
        collate_fn=_unchanged if collate is None else partial(_collated, collate),
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=ignore_interrupts,
    )
    try:
        with interrupts_blocked():
            items = iter(loader)
    except OSError as error:
        # Queues need semaphores, which are files in /dev/shm.
        line = outside_error(error) if is_shortage(error) else NO_SHARED_MEMORY
        raise UserError(line or NO_SHARED_MEMORY) from error
    try:
        for item in items:
            if isinstance(item, _Failure):
                raise UserError(item.line)
            yield item
    except (RuntimeError, OSError, MemoryError) as error:
        line = outside_error(error)
        if line is None or isinstance(error, UserError):
            raise
        raise UserError(line) from error


def _collated(collate: Callable[[list], object], items: list) -> object:
    """Return the first failure among items or, without one, what `collate` makes of them."""
    return next((item for item in items if isinstance(item, _Failure)), None) or collate(items)


def _unchanged(item: object) -> object:
    """Return an item as it is, where torch would make tensors of its arrays."""
    return item
