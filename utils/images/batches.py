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
"""Maximum number of images that wait for more images of their size, in batches."""

PREFETCH = 4
"""Images that each worker decodes in advance."""


class Loading(NamedTuple):
    """Settings of the loading of images."""

    longer_side: int
    """S, the longer side of the resized images, in pixels."""
    batch_size: int
    """Maximum number of images per batch."""
    workers: int
    """The number of processes that decode; 0 to decode in the main process."""

    @classmethod
    def on(
        cls, device: torch.device, longer_side: int, batch_size: int | None, workers: int | None
    ) -> "Loading":
        """Return the settings for a device; a batch size or workers of None are chosen for the device."""
        return cls(
            longer_side,
            suitable_batch_size(device) if batch_size is None else batch_size,
            suitable_workers(device) if workers is None else workers,
        )


class Batch(NamedTuple):
    """Images of one size."""

    indices: list[int]
    """Indices of the images in the list."""
    pixels: Tensor
    """(N, H, W, 3) uint8, RGB."""


class UnreadableImage(NamedTuple):
    """An image that cannot be decoded."""

    position: int
    """Index of the image in the list."""
    error: UnreadableImageError


class ImageDataset(Dataset):
    """Decoded images by their index in a list; an item is an error if the image cannot be loaded."""

    def __init__(self, images: Sequence[InputImage], longer_side: int) -> None:
        self.images = images
        self.longer_side = longer_side

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | UserError]:
        try:
            return index, load_pixels(self.images[index], self.longer_side).numpy()
        except UnreadableImageError as error:
            return index, UnreadableImageError(error.path, error.reason)  # a text, which can be pickled
        except UserError as error:
            return index, error


def size_batches(
    images: Sequence[InputImage], loading: Loading, block: int = 0
) -> Iterator[Batch | UnreadableImage]:
    """Decode images and group them by size, in an order that depends only on the arguments.

    Memory does not grow with the number of images: if too many images wait for more images of their size,
    the largest group is yielded although it is not full.

    Args:
        images: the images.
        loading: the settings of the loading.
        block: the number of images per block; all images of a block are yielded before the next block
            starts. 0 for a single block.

    Yields:
        Every image once, in a batch or as an unreadable image.

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
