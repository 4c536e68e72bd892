"""Batches of a training: region features of random crops, or precomputed features of centre crops."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.attention_classifier import RegionFeatures, mean_of_maxima, region_features
from models.backbones.backbone import Backbone
from utils.data.labelled_images import LabelledImages
from utils.device import suitable_batch_size
from utils.errors import UserError
from utils.file_names import features_lock
from utils.files.lock import only_writer
from utils.files.records import Setting
from utils.files.writing import make_folder
from utils.processes import Processes
from utils.training.crops import CentreCrops, CropBatch, CropSettings, RandomCrops, crop_batches
from utils.training.precomputed_features import precompute

Extract = Callable[[Tensor], RegionFeatures]
"""Function from (N, S, S, 3) uint8 pixels to the features of their regions."""


class FeatureBatch(NamedTuple):
    """Features and classes (N,) of a batch, and the unreadable images drawn; features are None if N is 0."""

    features: RegionFeatures | None
    classes: Tensor
    unreadable: list[Path]


class Draws(NamedTuple):
    """Batch size, number of worker processes, and seed of the draws."""

    batch_size: int
    """Number of images per batch, over all processes."""
    workers: int
    """Number of worker processes that crop images."""
    seed: int


class StoredFeatures(NamedTuple):
    """A file of region features."""

    path: Path
    made_with: Mapping[str, Setting]
    """Settings that the features depend on."""
    channels: int
    """C, the number of channels of the backbone."""
    check_stop: Callable[[], None]
    """Called after each image while the features are computed; it may raise."""


class BatchSource(NamedTuple):
    """Source of batches.

    `training(first, end)` yields the batches of the steps from `first` to `end - 1`. The batch of a step does
    not depend on `first`. `validation()` yields each validation image once. `centres(indices)` yields the
    readable images among some: their indices, and the mean region maxima (n, C) of their centre crops.
    """

    training: Callable[[int, int], Iterator[FeatureBatch]]
    validation: Callable[[], Iterator[FeatureBatch]]
    centres: Callable[[Sequence[int]], Iterator[tuple[list[int], Tensor]]]
    images: LabelledImages
    """The training images, followed by the validation images."""
    training_images: int
    """Number of images that training draws from, including unreadable images."""


def crop_source(
    training: LabelledImages,
    validation: LabelledImages,
    crops: CropSettings,
    extract: Extract,
    processes: Processes,
    draws: Draws,
) -> BatchSource:
    """Return a source of random crops for training and centre crops for validation.

    Their features are computed when a batch is requested.

    Args:
        training: images to learn from.
        validation: images to validate with.
        crops: settings of the crops.
        extract: the frozen part of the model; see `extract_regions`.
        processes: processes that share each batch.
        draws: batch size, workers and seed.
    """
    batch_size, workers, seed = draws
    images = training.followed_by(validation)

    def train(first: int, end: int) -> Iterator[FeatureBatch]:
        numbers = (processes.share(batch) for batch in _steps(first, end, batch_size))
        return _featured(crop_batches(RandomCrops(training, crops, seed), numbers, workers), extract)

    def validate() -> Iterator[FeatureBatch]:
        numbers = (processes.share(batch) for batch in _parts(len(validation.paths), batch_size))
        return _featured(crop_batches(CentreCrops(validation, crops), numbers, workers), extract)

    def describe_centres(indices: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        numbers = (indices[part.start : part.stop] for part in _parts(len(indices), batch_size))
        numbered = LabelledImages(images.paths, np.arange(len(images.paths)))
        for batch in _featured(crop_batches(CentreCrops(numbered, crops), numbers, workers), extract):
            if batch.features is not None:
                yield batch.classes.tolist(), mean_of_maxima(batch.features)

    return BatchSource(train, validate, describe_centres, images, len(training.paths))


def stored_source(
    stored: StoredFeatures,
    training: LabelledImages,
    validation: LabelledImages,
    crops: CropSettings,
    extract: Extract,
    processes: Processes,
    draws: Draws,
) -> BatchSource:
    """Return a source of centre crops, whose features are computed once and kept in a file.

    Each epoch goes through all training images in a new order.

    Args:
        stored: the file of features.
        training: images to learn from.
        validation: images to validate with.
        crops: settings of the crops.
        extract: the frozen part of the model; see `extract_regions`.
        processes: the processes of the training; only one is allowed.
        draws: batch size, workers and seed of the orders.

    Raises:
        UserError: the file has other settings or cannot be written, or no training image is readable.
    """
    if processes.count > 1:
        raise UserError("--precompute works in one process: start it without torchrun")
    batch_size, workers, seed = draws
    images = training.followed_by(validation)
    paths, classes = images.paths, images.classes

    def extract_from(first: int) -> Iterator[RegionFeatures | None]:
        numbers = ([index] for index in range(first, len(paths)))
        dataset = CentreCrops(images, crops)
        for batch in _featured(crop_batches(dataset, numbers, workers), extract):
            stored.check_stop()
            yield batch.features

    with _locked(stored.path):
        store = precompute(stored.path, paths, extract_from, stored.made_with, channels=stored.channels)
    readable = np.setdiff1d(np.arange(len(paths)), store.unreadable)
    is_training = readable < len(training.paths)
    to_learn, to_validate = readable[is_training], readable[~is_training]
    if len(to_learn) == 0:
        raise UserError(f"none of the {len(training.paths)} training images can be decoded")

    def batch_of(indices: np.ndarray, unreadable: Sequence[int]) -> FeatureBatch:
        features = RegionFeatures(*(tensor.to(processes.device) for tensor in store.read(indices)))
        unreadable_paths = [paths[index] for index in unreadable]
        return FeatureBatch(features, torch.from_numpy(classes[indices]), unreadable_paths)

    def train(first: int, end: int) -> Iterator[FeatureBatch]:
        unreadable = [index for index in store.unreadable if index < len(training.paths)]
        for step in _steps(first, end, batch_size):
            yield batch_of(np.array([_draw_index(to_learn, number, seed) for number in step]), unreadable)

    def validate() -> Iterator[FeatureBatch]:
        unreadable = [index for index in store.unreadable if index >= len(training.paths)]
        for part in _parts(len(to_validate), batch_size):
            yield batch_of(to_validate[part.start : part.stop], [] if part.start else unreadable)

    def read_centres(indices: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        present = np.setdiff1d(np.array(indices, np.int64), store.unreadable)
        for part in _parts(len(present), batch_size):
            part_indices = present[part.start : part.stop]
            yield part_indices.tolist(), mean_of_maxima(store.read(part_indices))

    return BatchSource(train, validate, read_centres, images, len(training.paths))


@contextmanager
def _locked(features: Path) -> Iterator[None]:
    """Hold the lock of a file of features while it is computed.

    A file that exists under its final name is complete and needs no lock, so it may be on a read-only disk.

    Raises:
        UserError: another process computes the file, or its folder cannot be written.
    """
    if features.is_file():
        yield
        return
    make_folder(features.parent)
    with only_writer(features_lock(features), features):
        yield


def extract_regions(backbone: Backbone, levels: int, pixels: Tensor) -> RegionFeatures:
    """Return the region features that a frozen backbone computes from (N, S, S, 3) uint8 pixels.

    The tensors are copies made outside inference mode, so that autograd accepts them.
    """
    batch_size = suitable_batch_size(backbone.device)
    features = region_features(backbone, backbone.prepare(pixels), levels, batch_size)
    return RegionFeatures(*(tensor.clone() for tensor in features))


def _featured(batches: Iterable[CropBatch], extract: Extract) -> Iterator[FeatureBatch]:
    for batch in batches:
        features = extract(batch.pixels) if len(batch.classes) else None
        yield FeatureBatch(features, batch.classes, batch.unreadable)


def _steps(first: int, end: int, batch_size: int) -> Iterator[range]:
    """Yield the numbers of the crops of each step, which begin at the step times the batch size."""
    return (range(step * batch_size, (step + 1) * batch_size) for step in range(first, end))


def _parts(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _draw_index(indices: np.ndarray, number: int, seed: int) -> int:
    """Return draw `number` of the indices. Each epoch draws every index once, in a new random order."""
    epoch, position = divmod(number, len(indices))
    return int(indices[_order(len(indices), epoch, seed)[position]])


@lru_cache(maxsize=2)  # a batch may span two epochs
def _order(count: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
