"""Crops of images for training and validation. A random crop depends only on the seed and its number."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from utils.data.labelled_images import LabelledImages
from utils.images.loading import UnreadableImageError, read_image
from utils.images.workers import worker_items

Interpolation = Literal["nearest", "bilinear", "bicubic"]

MAX_UNREADABLE_DRAWS = 100
"""Number of unreadable images drawn in a row after which the search for a readable image ends."""

PREFETCH = 2
"""Number of batches that each worker prepares in advance."""


class CropSettings(NamedTuple):
    """Side of a crop, range of the image's shorter side before cropping, in pixels, and interpolation."""

    crop: int
    shortest: int
    longest: int
    interpolation: Interpolation


class CropBatch(NamedTuple):
    """Crops of one step (N, S, S, 3) uint8, their classes (N,), and the unreadable images that were drawn."""

    pixels: Tensor
    classes: Tensor
    unreadable: list[Path]


MOST_PIXELS = 2**27
"""Largest number of pixels of a resized image. A very thin image would need more memory."""


def resize_shorter(image: Image.Image, side: int, interpolation: Interpolation) -> Image.Image:
    """Resize an image to a shorter side of `side` pixels; the longer side is rounded down."""
    shorter = min(image.size)
    width, height = (side if length == shorter else int(side * length / shorter) for length in image.size)
    return image.resize((width, height), Image.Resampling[interpolation.upper()])


def random_crop(path: Path, settings: CropSettings, rng: np.random.Generator) -> np.ndarray:
    """Return a random crop of an image resized to a random size, (S, S, 3) uint8.

    Raises:
        UnreadableImageError: the image cannot be decoded or is too thin.
    """
    side = int(rng.integers(settings.shortest, settings.longest + 1))
    image = _resized(path, side, settings.interpolation)
    top = int(rng.integers(image.height - settings.crop + 1))
    left = int(rng.integers(image.width - settings.crop + 1))
    return np.array(image.crop((left, top, left + settings.crop, top + settings.crop)))


def centre_crop(path: Path, settings: CropSettings) -> np.ndarray:
    """Return the centre of an image whose shorter side is resized to the crop's, (S, S, 3) uint8.

    Raises:
        UnreadableImageError: the image cannot be decoded or is too thin.
    """
    image = _resized(path, settings.crop, settings.interpolation)
    top, left = round((image.height - settings.crop) / 2), round((image.width - settings.crop) / 2)
    return np.array(image.crop((left, top, left + settings.crop, top + settings.crop)))


class RandomCrops(Dataset):
    """Training crops without end. A generator seeded by (seed, k) draws the image and position of crop k."""

    def __init__(self, images: LabelledImages, settings: CropSettings, seed: int) -> None:
        self.images = images
        self.settings = settings
        self.seed = seed

    def __getitem__(self, number: int) -> tuple[np.ndarray, int, list[Path]]:
        rng = np.random.default_rng([self.seed, number])
        unreadable: list[Path] = []
        for _ in range(MAX_UNREADABLE_DRAWS):
            index = int(rng.integers(len(self.images.paths)))
            try:
                return (
                    random_crop(self.images.paths[index], self.settings, rng),
                    int(self.images.classes[index]),
                    unreadable,
                )
            except UnreadableImageError as error:
                unreadable.append(error.path)
        return np.zeros((0, 0, 3), np.uint8), 0, unreadable


class CentreCrops(Dataset):
    """Centre crops of images, in the order of the images."""

    def __init__(self, images: LabelledImages, settings: CropSettings) -> None:
        self.images = images
        self.settings = settings

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, list[Path]]:
        path = self.images.paths[index]
        try:
            return centre_crop(path, self.settings), int(self.images.classes[index]), []
        except UnreadableImageError:
            return np.zeros((0, 0, 3), np.uint8), 0, [path]


def crop_batches(dataset: Dataset, numbers: Iterable[Sequence[int]], workers: int) -> Iterator[CropBatch]:
    """Yield batches of crops, made by worker processes. The crops do not depend on the number of workers.

    Args:
        dataset: RandomCrops or CentreCrops.
        numbers: numbers of the crops of each batch.
        workers: number of worker processes; 0 makes the crops in the current process.

    Yields:
        One batch per item of `numbers`, with the unreadable images listed instead of cropped.

    Raises:
        UserError: a worker died.
    """
    for crops in worker_items(dataset, numbers, _collate, workers, PREFETCH):
        pixels, classes, unreadable = crops
        yield CropBatch(torch.from_numpy(pixels), torch.from_numpy(classes), unreadable)


def _resized(path: Path, side: int, interpolation: Interpolation) -> Image.Image:
    """Decode an image and resize its shorter side.

    Raises:
        UnreadableImageError: the image cannot be decoded or is too thin.
    """
    image = Image.fromarray(read_image(path))
    if side**2 * max(image.size) > MOST_PIXELS * min(image.size):
        raise UnreadableImageError(path, f"it is too thin to crop: {image.width} x {image.height} pixels")
    return resize_shorter(image, side, interpolation)


def _collate(
    items: list[tuple[np.ndarray, int, list[Path]]],
) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """Return a batch as NumPy arrays, since workers pass tensors through shared memory."""
    readable = [(pixels, label) for pixels, label, _ in items if pixels.size]
    return (
        np.stack([pixels for pixels, _ in readable]) if readable else np.zeros((0, 0, 0, 3), np.uint8),
        np.array([label for _, label in readable], np.int64),
        [path for _, _, unreadable in items for path in unreadable],
    )
