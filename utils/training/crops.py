"""Crops of images for training and validation, each a function of the seed and its number alone."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from utils.data.imagenet import LabelledImages
from utils.images.loading import UnreadableImageError, read_image
from utils.images.workers import worker_items

Interpolation = Literal["nearest", "bilinear", "bicubic"]

MAX_UNREADABLE_DRAWS = 100
"""Number of unreadable images drawn in a row after which the search for a readable image ends."""

PREFETCH = 2
"""Batches that each worker cuts in advance."""


class CropSettings(NamedTuple):
    """Side of a crop, range of the image's shorter side before cropping, in pixels, and interpolation."""

    crop: int
    shortest: int
    longest: int
    interpolation: Interpolation


class CropBatch(NamedTuple):
    """Crops of one step (N, S, S, 3) uint8, their classes (N,), and the images found corrupt on the way."""

    pixels: Tensor
    classes: Tensor
    corrupt: list[Path]


MOST_PIXELS = 2**27
"""Pixels of a resized image, at most: one far thinner than any photograph would fill the memory."""


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
    """Endless training crops: a generator seeded by (seed, k) draws the image and position of crop k."""

    def __init__(self, images: LabelledImages, settings: CropSettings, seed: int) -> None:
        self.images = images
        self.settings = settings
        self.seed = seed

    def __getitem__(self, number: int) -> tuple[np.ndarray, int, list[Path]]:
        rng = np.random.default_rng([self.seed, number])
        corrupt: list[Path] = []
        for _ in range(MAX_UNREADABLE_DRAWS):
            index = int(rng.integers(len(self.images.paths)))
            try:
                return (
                    random_crop(self.images.paths[index], self.settings, rng),
                    int(self.images.classes[index]),
                    corrupt,
                )
            except UnreadableImageError as error:
                corrupt.append(error.path)
        return np.zeros((0, 0, 3), np.uint8), 0, corrupt


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
    """Crops in batches, cut by worker processes; what comes out does not depend on how many there are.

    Args:
        dataset: RandomCrops or CentreCrops.
        numbers: of each batch, the crops' numbers.
        workers: processes; 0 cuts in this one.

    Yields:
        One batch for each entry, without the corrupt images, which it names.

    Raises:
        UserError: a worker died.
    """
    for crops in worker_items(dataset, numbers, _collate, workers, PREFETCH):
        pixels, classes, corrupt = crops
        yield CropBatch(torch.from_numpy(pixels), torch.from_numpy(classes), corrupt)


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
    """Return arrays, as tensors would need shared memory."""
    readable = [(pixels, label) for pixels, label, _ in items if pixels.size]
    return (
        np.stack([pixels for pixels, _ in readable]) if readable else np.zeros((0, 0, 0, 3), np.uint8),
        np.array([label for _, label in readable], np.int64),
        [path for _, _, corrupt in items for path in corrupt],
    )
