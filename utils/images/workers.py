"""Items of a data set, made by worker processes that can be killed and need no shared memory.

Items must hold no tensors: torch would pass those through /dev/shm, of which containers have 64 MB, with a
file open for each. Arrays go through pipes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch.utils.data import DataLoader, Dataset

from utils.errors import UserError
from utils.program.outside_errors import NO_SHARED_MEMORY, is_shortage, outside_error
from utils.program.signals import ignore_interrupts, interrupts_blocked


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
        UserError: a worker was killed or cannot be started.
    """
    batches = {"sampler": numbers} if collate is None else {"batch_sampler": numbers}
    loader = DataLoader(
        dataset,
        **batches,
        **({"batch_size": None} if collate is None else {}),
        num_workers=workers,
        collate_fn=_unchanged if collate is None else collate,
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
        yield from items
    except (RuntimeError, OSError, MemoryError) as error:
        line = outside_error(error)
        if line is None or isinstance(error, UserError):
            raise
        raise UserError(line) from error


def _unchanged(item: object) -> object:
    """Return an item as it is, where torch would make tensors of its arrays."""
    return item
