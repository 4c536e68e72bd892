"""The batches a training sees: region features of random crops, or of fixed ones that were precomputed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.attention_classifier import RegionFeatures, region_features
from models.backbones.backbone import Backbone
from utils.data.imagenet import LabelledImages
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
"""From (N, S, S, 3) uint8 pixels to the features of their regions."""


class FeatureBatch(NamedTuple):
    """Features and classes (N,) of a batch, no features where N is 0, and the corrupt images met."""

    features: RegionFeatures | None
    classes: Tensor
    unreadable: list[Path]


class Draws(NamedTuple):
    """Batch size, cropping processes and seed of the draws."""

    batch_size: int
    """Images of a batch, over all processes."""
    workers: int
    """Processes that crop."""
    seed: int


class StoredFeatures(NamedTuple):
    """A file of region features."""

    path: Path
    made_with: Mapping[str, Setting]
    """Settings that the features depend on."""
    channels: int
    """C, the backbone's channels."""


class BatchSource(NamedTuple):
    """Source of batches.

    `training(first, end)` has one batch for each step from `first` up to `end`, the same wherever it began;
    `validation()` has all validation images once.
    """

    training: Callable[[int, int], Iterator[FeatureBatch]]
    validation: Callable[[], Iterator[FeatureBatch]]
    training_images: int
    """Images that training draws from, unreadable ones included."""


def crop_source(
    training: LabelledImages,
    validation: LabelledImages,
    crops: CropSettings,
    extract: Extract,
    processes: Processes,
    draws: Draws,
) -> BatchSource:
    """Random crops of the training images and the middles of the others, described as they are needed.

    Args:
        training: images to learn from.
        validation: images to validate with.
        crops: how they are cut.
        extract: the frozen part, `extract_regions` for some network.
        processes: each process gets its share of every batch.
        draws: how images are drawn.
    """
    batch_size, workers, seed = draws

    def train(first: int, end: int) -> Iterator[FeatureBatch]:
        numbers = (processes.share(batch) for batch in _steps(first, end, batch_size))
        return _featured(crop_batches(RandomCrops(training, crops, seed), numbers, workers), extract)

    def validate() -> Iterator[FeatureBatch]:
        numbers = (processes.share(batch) for batch in _parts(len(validation.paths), batch_size))
        return _featured(crop_batches(CentreCrops(validation, crops), numbers, workers), extract)

    return BatchSource(train, validate, len(training.paths))


def stored_source(
    stored: StoredFeatures,
    training: LabelledImages,
    validation: LabelledImages,
    crops: CropSettings,
    extract: Extract,
    processes: Processes,
    draws: Draws,
) -> BatchSource:
    """The middles of all images, described once into a file; training goes through them epoch by epoch.

    Args:
        stored: the file.
        training: images to learn from.
        validation: images to validate with.
        crops: how they are cut.
        extract: the frozen part, `extract_regions` for some network.
        processes: one process alone.
        draws: how images are drawn; the seed is that of the orders.

    Raises:
        UserError: the file was made with other settings or cannot be written, or there are several processes.
    """
    if processes.count > 1:
        raise UserError("--precompute works in one process: start it without torchrun")
    batch_size, workers, seed = draws
    paths = training.paths + validation.paths
    classes = np.concatenate([training.classes, validation.classes])

    def extract_from(first: int) -> Iterator[RegionFeatures | None]:
        numbers = ([index] for index in range(first, len(paths)))
        dataset = CentreCrops(LabelledImages(paths, classes), crops)
        return (batch.features for batch in _featured(crop_batches(dataset, numbers, workers), extract))

    with _locked(stored.path):
        store = precompute(stored.path, paths, extract_from, stored.made_with, channels=stored.channels)
    readable = np.setdiff1d(np.arange(len(paths)), store.corrupt)
    is_training = readable < len(training.paths)
    to_learn, to_validate = readable[is_training], readable[~is_training]
    if len(to_learn) == 0:
        raise UserError(f"none of the {len(training.paths)} training images can be decoded")

    def batch_of(indices: np.ndarray, corrupt: Sequence[int]) -> FeatureBatch:
        features = RegionFeatures(*(tensor.to(processes.device) for tensor in store.read(indices)))
        return FeatureBatch(features, torch.from_numpy(classes[indices]), [paths[index] for index in corrupt])

    def train(first: int, end: int) -> Iterator[FeatureBatch]:
        corrupt = [index for index in store.corrupt if index < len(training.paths)]
        for step in _steps(first, end, batch_size):
            yield batch_of(np.array([_draw_index(to_learn, number, seed) for number in step]), corrupt)

    def validate() -> Iterator[FeatureBatch]:
        corrupt = [index for index in store.corrupt if index >= len(training.paths)]
        for part in _parts(len(to_validate), batch_size):
            yield batch_of(to_validate[part.start : part.stop], [] if part.start else corrupt)

    return BatchSource(train, validate, len(training.paths))


@contextmanager
def _locked(features: Path) -> Iterator[None]:
    """Refuse a second process that makes the same file of features.

    A file that is there under its name is complete, and is only read: also from a disk that is read-only.

    Raises:
        UserError: another process makes it, or its folder cannot be written.
    """
    if features.is_file():
        yield
        return
    make_folder(features.parent)
    with only_writer(features_lock(features), features):
        yield


def extract_regions(backbone: Backbone, levels: int, pixels: Tensor) -> RegionFeatures:
    """Return the region features of (N, S, S, 3) uint8 pixels by a frozen backbone.

    Inference mode's tensors cannot be part of a graph for gradients: these are copies that can.
    """
    batch_size = suitable_batch_size(backbone.device)
    features = region_features(backbone, backbone.prepare(pixels), levels, batch_size)
    return RegionFeatures(*(tensor.clone() for tensor in features))


def _featured(batches: Iterable[CropBatch], extract: Extract) -> Iterator[FeatureBatch]:
    for batch in batches:
        features = extract(batch.pixels) if len(batch.classes) else None
        yield FeatureBatch(features, batch.classes, batch.corrupt)


def _steps(first: int, end: int, batch_size: int) -> Iterator[range]:
    """The numbers of each step's crops: step s has those from s times the batch size."""
    return (range(step * batch_size, (step + 1) * batch_size) for step in range(first, end))


def _parts(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _draw_index(indices: np.ndarray, number: int, seed: int) -> int:
    """Return draw `number` of the indices: each epoch draws every index once, in an order of its own."""
    epoch, position = divmod(number, len(indices))
    return int(indices[_order(len(indices), epoch, seed)[position]])


@lru_cache(maxsize=2)  # a batch may span two epochs
def _order(count: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
