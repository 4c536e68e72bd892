"""Batches of images of one size, decoded and resized by worker processes while the network computes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from utils.device import suitable_batch_size, suitable_workers
from utils.errors import UserError
from utils.images.loading import InputImage, UnreadableImageError, load_pixels
from utils.images.workers import worker_items

HELD_BATCHES = 4
"""At most this many batches' worth of images wait for others of their size."""

PREFETCH = 4
"""Images that each worker decodes in advance."""


class Loading(NamedTuple):
    """How images are loaded."""

    longer_side: int
    """S, the longer side of the resized images, in pixels."""
    batch_size: int
    """Images of one size in a batch, at most."""
    workers: int
    """Processes that decode; 0 for none beside the computing one."""

    @classmethod
    def on(
        cls, device: torch.device, longer_side: int, batch_size: int | None, workers: int | None
    ) -> "Loading":
        """Return the loading for a device, whose batch size and workers suit it where they are None."""
        return cls(
            longer_side,
            suitable_batch_size(device) if batch_size is None else batch_size,
            suitable_workers(device) if workers is None else workers,
        )


class Batch(NamedTuple):
    """Images of one size: their places in the list and (N, H, W, 3) uint8 RGB pixels."""

    indices: list[int]
    pixels: Tensor


class UnreadableImage(NamedTuple):
    """An image that cannot be decoded: its place in the list and why."""

    position: int
    error: UnreadableImageError


class ImageDataset(Dataset):
    """Decoded images by their place in a list; a failure is an item too, for the loop to judge."""

    def __init__(self, images: Sequence[InputImage], longer_side: int) -> None:
        self.images = images
        self.longer_side = longer_side

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | UserError]:
        try:
            return index, load_pixels(self.images[index], self.longer_side).numpy()
        except UnreadableImageError as error:
            return index, UnreadableImageError(error.path, error.reason)  # whose reason can be pickled
        except UserError as error:
            return index, error


def size_batches(
    images: Sequence[InputImage], loading: Loading, block: int = 0
) -> Iterator[Batch | UnreadableImage]:
    """Decodes images and groups those of one size, in an order that only depends on the arguments.

    Memory does not grow with the number of images: where their sizes differ so much that too many wait for
    a batch of their own, the fullest group goes out as it is.

    Args:
        images: the images.
        loading: how they are loaded.
        block: images after which nothing waits any more, so that they are all out before the next ones; 0
            for no such blocks.

    Yields:
        Every image once, in a batch or as a bad image.

    Raises:
        UserError: a box is empty, the memory does not suffice, or a worker died.
    """
    longer_side, batch_size, workers = loading
    dataset = ImageDataset(images, longer_side)
    items = worker_items(dataset, range(len(images)), None, min(workers, len(images)), PREFETCH)
    waiting: dict[torch.Size, list[tuple[int, Tensor]]] = defaultdict(list)
    held = 0
    for index, item in items:
        if block and index % block == 0:
            for group in waiting.values():
                yield _stack(group)
            waiting.clear()
            held = 0
        if isinstance(item, UnreadableImageError):
            yield UnreadableImage(index, item)
            continue
        if isinstance(item, UserError):
            raise item
        pixels = torch.from_numpy(item)
        group = waiting[pixels.shape]
        group.append((index, pixels))
        held += 1
        if held > HELD_BATCHES * batch_size:
            group = max(waiting.values(), key=len)
        if len(group) >= batch_size or held > HELD_BATCHES * batch_size:
            held -= len(group)
            yield _stack(waiting.pop(group[0][1].shape))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, Tensor]]) -> Batch:
    indices, pixels = zip(*group, strict=True)
    return Batch(list(indices), torch.stack(pixels))
