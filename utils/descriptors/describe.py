"""Descriptors of images, one row each, in memory or in a store on disk."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.constant import check_not_constant
from utils.descriptors.extraction import network_outputs
from utils.descriptors.keys import image_keys
from utils.descriptors.rows import Rows
from utils.descriptors.store import DescriptorStore
from utils.errors import UserError
from utils.images.batches import Loading, UnreadableImage
from utils.images.loading import InputImage, UnreadableImageError
from utils.processes import Processes

log = logging.getLogger(__name__)


DISK_SECONDS = 60.0
"""How long a disk in the network may take to show one computer what another has written."""


class Descriptors(NamedTuple):
    """One row an image that could be decoded, (N, D), in their order; why the others could not, by place."""

    rows: Rows
    bad: dict[int, UnreadableImageError]
    keys: list[str]
    """What the store calls each row's image; its name where there is no store."""


def describe(
    network: RetrievalNetwork,
    images: Sequence[InputImage],
    loading: Loading,
    processes: Processes,
    *,
    skip_bad_images: bool = False,
    title: str = "images",
    store: DescriptorStore | None = None,
    names: Sequence[str] | None = None,
) -> Descriptors:
    """Describes images by a network; each of several processes a part.

    Args:
        network: in evaluation mode, on its device.
        images: what to describe.
        loading: how they are loaded.
        processes: the processes that share the work.
        skip_bad_images: go on after an image that cannot be decoded.
        title: what the progress bar calls the images.
        store: where descriptors are kept and, of images described before, found; None to keep them in
            memory.
        names: what the store calls the images; their files' names if not given.

    Returns:
        The descriptors; only of use in the process that leads.

    Raises:
        UnreadableImageError: an image cannot be decoded, unless those are skipped.
        UserError: a descriptor is not finite, the network gives every image the same one, the memory or the
            disk does not suffice, a worker died, or the processes do not share the store.
    """
    names = [image.path.name for image in images] if names is None else names
    keys, pending = _pending(images, names, title, store, processes)
    mine = [pending[place] for place in processes.share(range(len(pending)))]
    start = time.perf_counter()
    with _flushed(store):
        made = _compute(network, images, mine, keys, loading, store, processes, title, skip_bad_images)
    bad = dict(sorted(processes.gather(list(made.bad.items()))))
    if pending:
        count, seconds = len(pending) - len(bad), time.perf_counter() - start
        log.info("described %d %s in %.1f s (%.2f a second)", count, title, seconds, count / seconds)
    empty = sorted(processes.gather(made.empty))
    if len(bad) == len(images):
        why = f": {next(iter(bad.values()))}" if bad else ""
        raise UserError(f"none of the {len(images)} {title} can be decoded{why}")
    if empty and processes.leads:
        _note_empty(title, [images[index] for index in empty])
    kept = [place for place in range(len(images)) if place not in bad]
    kept_keys = [keys[place] for place in kept]
    if store is None:
        rows = _joined(made.rows, len(images), kept, processes)
    else:
        rows = _stored(store, kept_keys, processes) if processes.leads else np.empty((0, 0), np.float32)
    if processes.leads:
        # The store keeps equal rows too: it is for these weights alone, and they are checked at every run.
        check_not_constant(rows, [images[place] for place in kept])
    return Descriptors(rows, bad, kept_keys)


def _pending(
    images: Sequence[InputImage],
    names: Sequence[str],
    title: str,
    store: DescriptorStore | None,
    processes: Processes,
) -> tuple[list[str], list[int]]:
    """Return the key of each image, and the indices of those that are not in the store yet.

    Raises:
        UserError: the processes do not have the same images.
    """
    keys, pending = list(names), list(range(len(images)))
    if store is not None:
        keys = image_keys(images, names)
        pending = [place for place in pending if keys[place] not in store]
    if store is not None and len(pending) < len(images):
        log.info("%d of %d %s are in %s", len(images) - len(pending), len(images), title, store.folder)
    # What the first process found holds: the store may have grown since, and copies of a file differ in time.
    processes.check_same_names(names, title)
    pending, keys = (processes.gather(items if processes.leads else []) for items in (pending, keys))
    return keys, pending


def _note_empty(title: str, images: Sequence[InputImage]) -> None:
    """Note images whose descriptors are zero."""
    log.warning(
        "note: the network sees nothing in %d %s (%s the first), whose descriptors are zero",
        len(images),
        title,
        images[0].path,
    )


def _joined(mine: np.ndarray | None, count: int, kept: Sequence[int], processes: Processes) -> Rows:
    """Return the descriptors of all processes, without those of unreadable images."""
    width = max(processes.gather([0 if mine is None else mine.shape[1]]))
    rows = processes.add_up_array(np.zeros((count, width), np.float32) if mine is None else mine)
    return rows if len(kept) == count else rows[kept]


class _Computed(NamedTuple):
    """The results of one process."""

    rows: np.ndarray | None
    """(N, D), zeros for images of other processes; None if there are none, or a store takes them in."""
    bad: dict[int, UnreadableImageError]
    empty: list[int]
    """Indices of the images whose descriptors are zero."""


def _compute(
    network: RetrievalNetwork,
    images: Sequence[InputImage],
    mine: Sequence[int],
    keys: Sequence[str],
    loading: Loading,
    store: DescriptorStore | None,
    processes: Processes,
    title: str,
    skip_bad_images: bool,
) -> _Computed:
    """Describe the images of one process, into a store if there is one."""
    rows: np.ndarray | None = None
    bad: dict[int, UnreadableImageError] = {}
    empty: list[int] = []
    hidden = None if processes.leads and mine else True
    with tqdm(total=len(mine), desc=title, unit="image", disable=hidden) as bar:
        for output in network_outputs(network, [images[index] for index in mine], loading):
            if isinstance(output, UnreadableImage):
                if not skip_bad_images:
                    raise output.error
                bad[mine[output.position]] = output.error
                bar.update()
                continue
            places = [mine[index] for index in output.indices]
            values = output.values.reshape(len(places), -1)
            empty += [place for place, value in zip(places, values, strict=True) if not value.any()]
            if store is not None:
                store.add([keys[place] for place in places], values)
            else:
                if rows is None:
                    rows = np.zeros((len(images), values.shape[1]), np.float32)
                rows[places] = values
            bar.update(len(places))
    return _Computed(rows, bad, empty)


@contextmanager
def _flushed(store: DescriptorStore | None) -> Iterator[None]:
    """Writes to the disk, at the end or after a failure, what a store has taken in."""
    try:
        yield
    finally:
        if store is not None:
            store.flush()


def _stored(store: DescriptorStore, keys: Sequence[str], processes: Processes) -> Rows:
    store.read()
    absent = [key for key in keys if key not in store]
    patience = time.monotonic() + (DISK_SECONDS if processes.count > 1 else 0)
    while absent and time.monotonic() < patience:
        time.sleep(1)
        store.read()
        absent = [key for key in absent if key not in store]
    if absent:
        raise UserError(
            f"{len(absent)} descriptors are not in {store.folder}: it must be one folder for all processes, "
            "on a file system that their computers share"
        )
    return store.rows(keys)
