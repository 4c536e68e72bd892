"""Worker processes that compute the items of a data set, without shared memory.

Items must not contain tensors: torch passes tensors through /dev/shm, which is limited to 64 MB in
containers, and keeps a file open per tensor. Arrays are passed through pipes.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, cast

from torch.utils.data import DataLoader, Dataset

from utils.errors import UserError
from utils.program.outside_errors import NO_SHARED_MEMORY, is_shortage, outside_error
from utils.program.signals import leave_signals_to_parent, stopping_blocked


class _Failure(NamedTuple):
    """The message of a UserError; torch would add the traceback of the worker to an exception."""

    line: str


class _ErrorsAsItems(Dataset):
    """A data set that returns a UserError as an item instead of raising it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> object:
        try:
            return self.dataset[index]
        except UserError as error:
            return _Failure(str(error))


def worker_items(
    dataset: Dataset,
    indices: Iterable[int] | Iterable[Sequence[int]],
    collate: Callable[[list], object] | None,
    workers: int,
    prefetch: int,
) -> Iterator:
    """Yield items of a data set in order.

    Args:
        dataset: the data set; its items and the results of `collate` can be pickled.
        indices: the index of each item or, with `collate`, the indices of each batch.
        collate: combines the items of a batch into one item; None for no batches.
        workers: the number of processes; 0 for the main process.
        prefetch: the number of items that each worker computes in advance.

    Yields:
        The items.

    Raises:
        UserError: the data set raises one, or a worker was killed or cannot be started.
    """
    # torch warns about more workers than cores, which are useful if images are on a network disk.
    warnings.filterwarnings("ignore", message=r"This DataLoader will create \d+ worker processes")
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=None if collate is None else 1,
        sampler=indices if collate is None else None,
        batch_sampler=None if collate is None else cast(Iterable[list[int]], indices),
        num_workers=workers,
        collate_fn=_return_unchanged if collate is None else partial(_collate_or_fail, collate),
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=leave_signals_to_parent,
    )
    try:
        with stopping_blocked():
            items = iter(loader)
    except OSError as error:
        # The queues of the workers need semaphores, which are files in /dev/shm.
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


def _collate_or_fail(collate: Callable[[list], object], items: list) -> object:
    """Return the first failure among the items of a batch, or the collated items if there is none."""
    return next((item for item in items if isinstance(item, _Failure)), None) or collate(items)


def _return_unchanged(item: object) -> object:
    """Return an item unchanged; by default, torch converts its arrays to tensors."""
    return item
