"""Computation of descriptors, one row per image, in memory or in a store on disk."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.attention_maps import descriptors_and_maps, map_width
from utils.descriptors.constant import check_not_constant
from utils.descriptors.extraction import network_outputs
from utils.descriptors.keys import image_keys
from utils.descriptors.rows import Rows
from utils.descriptors.shared_store import share_stored_rows
from utils.descriptors.store import DescriptorStore
from utils.errors import UserError
from utils.images.batches import Loading, UnreadableImage
from utils.images.loading import InputImage, UnreadableImageError
from utils.processes import Processes

log = logging.getLogger(__name__)


class NoReadableImageError(UserError):
    """Error for images of which none is readable.

    Args:
        message: the message.
        unreadable: index of each image to its error.
    """

    def __init__(self, message: str, unreadable: Mapping[int, UnreadableImageError] | None = None) -> None:
        super().__init__(message)
        self.unreadable = dict(unreadable or {})


class Descriptors(NamedTuple):
    """Descriptors of images."""

    rows: Rows
    """(N, D), one row per readable image, in the order of the images."""
    unreadable: dict[int, UnreadableImageError]
    """Index of each unreadable image to its error."""
    keys: list[str]
    """Key in the store of the image of each row; the name of the image if there is no store."""


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
    maps: DescriptorStore | None = None,
) -> Descriptors:
    """Compute the descriptors of images; each process computes a part of them.

    Args:
        network: the network, in evaluation mode.
        images: the images.
        loading: the settings of the loading.
        processes: the processes that share the work.
        skip_bad_images: leave out unreadable images instead of raising an error.
        title: the name of the images in the progress bar and in messages.
        store: the store to write descriptors to and to read existing ones from; None to keep the descriptors
            in memory.
        names: the names of the images in the store; file names by default.
        maps: the store of attention maps to write the maps of newly described images to, under the same keys;
            it needs a network with attention and one scale.

    Returns:
        The descriptors, in all processes.

    Raises:
        UnreadableImageError: an image is unreadable, unless unreadable images are left out.
        UserError: no image is readable, a descriptor is not finite, all images have the same descriptor, the
            memory or the disk does not suffice, a worker died, or the processes do not share the store.
    """
    names = [image.path.name for image in images] if names is None else names
    keys, pending = find_pending(images, names, title, store, processes)
    share = [pending[index] for index in processes.share(range(len(pending)))]
    start = time.perf_counter()
    targets = _Targets(store, maps)
    with flush_afterwards(store), flush_afterwards(maps):
        computed = _compute(network, images, share, keys, loading, targets, processes, title, skip_bad_images)
    unreadable = dict(sorted(processes.gather(list(computed.unreadable.items()))))
    if count := len(pending) - len(unreadable):
        seconds = time.perf_counter() - start
        log.info("described %d %s in %.1f s (%.2f per second)", count, title, seconds, count / seconds)
    empty = sorted(processes.gather(computed.empty))
    if len(unreadable) == len(images):
        reason = f": {next(iter(unreadable.values()))}" if unreadable else ""
        message = f"none of the {len(images)} {title} can be decoded{reason}"
        raise NoReadableImageError(message, unreadable)
    if empty and processes.leads:
        _note_empty(title, [images[index] for index in empty])
    readable = [index for index in range(len(images)) if index not in unreadable]
    readable_keys = [keys[index] for index in readable]
    if store is None:
        rows = _join_rows(computed.rows, len(images), readable, processes)
    else:
        rows = share_stored_rows(store, readable_keys, processes)
    if processes.leads:
        # Equal rows stay in the store, which is only for these weights; every run checks them.
        check_not_constant(rows, [images[index] for index in readable])
    return Descriptors(rows, unreadable, readable_keys)


def find_pending(
    images: Sequence[InputImage],
    names: Sequence[str],
    title: str,
    store: DescriptorStore | None,
    processes: Processes,
) -> tuple[list[str], list[int]]:
    """Return the keys of all images, and the indices of the images that are not in the store.

    Raises:
        UserError: the processes do not have the same images.
    """
    keys, pending = list(names), list(range(len(images)))
    if store is not None:
        keys = image_keys(images, names)
        pending = [index for index in pending if keys[index] not in store]
    if store is not None and len(pending) < len(images):
        log.info("%d of %d %s are in %s", len(images) - len(pending), len(images), title, store.folder)
    # All processes use the result of the first one: the store may have changed meanwhile, and the times of
    # files, which are in the keys, differ between copies of a data set.
    processes.check_same_names(names, title)
    pending, keys = (processes.gather(items if processes.leads else []) for items in (pending, keys))
    return keys, pending


def _note_empty(title: str, images: Sequence[InputImage]) -> None:
    """Log a note on images with descriptors of zeros."""
    log.warning(
        "note: the descriptors of %d %s (first: %s) are zero",
        len(images),
        title,
        images[0].path,
    )


def _join_rows(
    computed: np.ndarray | None, count: int, readable: Sequence[int], processes: Processes
) -> Rows:
    """Return the descriptors of the readable images from all processes."""
    width = max(processes.gather([0 if computed is None else computed.shape[1]]))
    rows = processes.add_up_array(np.zeros((count, width), np.float32) if computed is None else computed)
    return rows if len(readable) == count else rows[readable]


class _Computed(NamedTuple):
    """The results of one process."""

    rows: np.ndarray | None
    """(N, D), zeros for images of other processes; None if there are no images or if there is a store."""
    unreadable: dict[int, UnreadableImageError]
    empty: list[int]
    """Indices of images with descriptors of zeros."""


class _Targets(NamedTuple):
    """The stores to write to, if there are any."""

    store: DescriptorStore | None
    maps: DescriptorStore | None


def _compute(
    network: RetrievalNetwork,
    images: Sequence[InputImage],
    share: Sequence[int],
    keys: Sequence[str],
    loading: Loading,
    targets: _Targets,
    processes: Processes,
    title: str,
    skip_bad_images: bool,
) -> _Computed:
    """Compute the descriptors of the images of one process, and add them to the store if there is one."""
    rows: np.ndarray | None = None
    unreadable: dict[int, UnreadableImageError] = {}
    empty: list[int] = []
    hidden = None if processes.leads and share else True
    store, maps = targets
    compute, width = None, 0
    if maps is not None:
        width = map_width(loading.longer_side, network.backbone.stride)
        compute = partial(descriptors_and_maps, network=network, width=width)
    with tqdm(total=len(share), desc=title, unit="image", disable=hidden) as bar:
        for output in network_outputs(network, [images[index] for index in share], loading, compute=compute):
            if isinstance(output, UnreadableImage):
                if not skip_bad_images:
                    raise output.error
                unreadable[share[output.position]] = output.error
                bar.update()
                continue
            indices = [share[index] for index in output.indices]
            values = output.values.reshape(len(indices), -1)
            if maps is not None:
                maps.add([keys[index] for index in indices], values[:, -width:])
                values = values[:, :-width]
            empty += [index for index, value in zip(indices, values, strict=True) if not value.any()]
            if store is not None:
                store.add([keys[index] for index in indices], values)
            else:
                if rows is None:
                    rows = np.zeros((len(images), values.shape[1]), np.float32)
                rows[indices] = values
            bar.update(len(indices))
    return _Computed(rows, unreadable, empty)


@contextmanager
def flush_afterwards(store: DescriptorStore | None) -> Iterator[None]:
    """Flush a store after a block, also if the block raises an exception."""
    try:
        yield
    finally:
        if store is not None:
            store.flush()
