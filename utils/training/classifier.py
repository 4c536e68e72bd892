"""The first stage of a training on other classes than ImageNet's: a linear classifier of frozen features.

The feature of an image is the mean of the region maxima of its centre crop: the input of the classifier if
all regions have equal weights. Features are computed once and kept in a descriptor store, from which a killed
training continues. The classifier is then trained in seconds or minutes. If that is interrupted, it starts
again from the features.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from utils.descriptors.describe import find_pending, flush_afterwards
from utils.descriptors.shared_store import open_shared_store, read_stored_rows
from utils.descriptors.store import DescriptorStore
from utils.errors import UserError
from utils.files.records import Setting
from utils.images.loading import InputImage
from utils.processes import Processes
from utils.training.batches import BatchSource
from utils.training.validation import loss_and_hits
from utils.weights.classifiers import Classifier

DECAY = 1e-4
"""Factor of half the squared weights in the loss, for features whose mean squared length is 1.

With 300 photographs of five classes, the loss of 120 validation photographs differs by 3 % from 1e-4 to 1e-5
and is larger at 1e-3 and 1e-6.
"""

GRADIENT = 1e-6
"""Largest component of the gradient at which the fit ends."""

ROWS = 8192
"""Features converted to float64 at a time."""


class CentreFeatures(NamedTuple):
    """Stored features of the centre crops of all images."""

    store: DescriptorStore
    keys: list[str]
    """Key of each image."""
    readable: np.ndarray
    """Indices of the readable images, (n,)."""

    def unreadable_training_images(self, source: BatchSource) -> list[Path]:
        """Return the paths of the unreadable training images."""
        unreadable = np.setdiff1d(np.arange(source.training_images), self.readable)
        return [source.images.paths[index] for index in unreadable]

    def read(self, indices: np.ndarray, processes: Processes) -> Tensor:
        """Read the features of some images, (n, C) float32, to the device of this process.

        Raises:
            UserError: some are missing, since the processes do not share the store.
        """
        rows = read_stored_rows(self.store, [self.keys[index] for index in indices], processes)
        return torch.from_numpy(rows[np.arange(len(indices))]).to(processes.device)


def compute_centre_features(
    source: BatchSource,
    folder: Path,
    made_with: Mapping[str, Setting],
    processes: Processes,
    check_stop: Callable[[], None],
) -> CentreFeatures:
    """Compute the features of the centre crops of all images that are not in the store.

    Args:
        source: the source of the features.
        folder: the folder of the store, which all processes share.
        made_with: the settings that the features depend on.
        processes: the processes; each computes a share of the features.
        check_stop: called after each batch; if it raises, the features so far are kept.

    Raises:
        UserError: the store has other settings or cannot be written, or a feature is not finite.
    """
    store = open_shared_store(folder, made_with, "float32", processes)
    images = [InputImage(path) for path in source.images.paths]
    names = relative_names(source.images.paths)
    keys, pending = find_pending(images, names, "images", store, processes)
    share = [pending[index] for index in processes.share(range(len(pending)))]
    unreadable = set(share)
    hidden = None if processes.leads else True
    with flush_afterwards(store), tqdm(None, "features", len(share), unit="image", disable=hidden) as bar:
        for indices, features in source.centres(share):
            if not torch.isfinite(features).all():
                raise UserError(f"features of {names[indices[0]]} are not finite: try --precision float32")
            store.add([keys[index] for index in indices], features.cpu().numpy())
            unreadable.difference_update(indices)
            bar.update(len(indices))
            check_stop()
    all_unreadable = processes.gather(sorted(unreadable))
    return CentreFeatures(store, keys, np.setdiff1d(np.arange(len(images)), all_unreadable))


def relative_names(paths: Sequence[Path]) -> list[str]:
    """Return the paths relative to their common folder, which computers may have in different places."""
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100  without resolving links
    folder = os.path.commonpath(absolute)
    return [os.path.relpath(path, folder) for path in absolute]


def fit_classifier(
    features: Tensor, classes: Tensor, count: int, steps: int, check_stop: Callable[[], None]
) -> tuple[Classifier, int]:
    """Fit a linear classifier by logistic regression with L-BFGS, in float64.

    The features are shifted by their mean and divided by the root of their mean squared length, so that the
    scores do not depend on the scale of the backbone. Shift and scale are then folded into weight and bias.

    Args:
        features: (N, C).
        classes: (N,), the class indices.
        count: K, the number of classes.
        steps: the largest number of steps; the fit ends earlier if the gradient vanishes.
        check_stop: called before each evaluation of the loss.

    Returns:
        The classifier, and the number of steps.

    Raises:
        UserError: all features are equal.
    """
    parts = list(zip(features.split(ROWS), classes.split(ROWS), strict=True))
    mean = torch.stack([part.double().sum(0) for part, _ in parts]).sum(0) / len(features)
    squares = torch.stack([(part.double() - mean).square().sum() for part, _ in parts]).sum()
    scale = (squares / len(features)).sqrt()
    if not scale > 0:
        raise UserError(f"all {len(features)} training images have the same features: compare their files")
    weight = torch.zeros(count, features.shape[1], dtype=torch.float64, device=features.device)
    bias = weight.new_zeros(count)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        max_eval=10 * steps,
        tolerance_grad=GRADIENT,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        check_stop()
        optimizer.zero_grad()
        loss = DECAY / 2 * weight.square().sum()
        loss.backward()
        for part, part_classes in parts:
            scores = F.linear((part.double() - mean) / scale, weight, bias)
            part_loss = F.cross_entropy(scores, part_classes, reduction="sum") / len(features)
            part_loss.backward()
            loss = loss.detach() + part_loss.detach()
        return loss

    optimizer.step(evaluate)
    folded = weight.detach() / scale
    return (
        Classifier(folded.float(), (bias.detach() - folded @ mean).float()),
        int(optimizer.state[weight]["n_iter"]),
    )


def train_classifier(
    source: BatchSource,
    features: CentreFeatures,
    classes: Sequence[str],
    channels: int,
    steps: int,
    processes: Processes,
    check_stop: Callable[[], None],
) -> tuple[Classifier, dict[str, float]]:
    """Train a classifier in the first process, for all processes.

    Args:
        source: the source of the features.
        features: the features.
        classes: the names of the classes.
        channels: C, the number of channels of the backbone.
        steps: see `fit_classifier`.
        processes: the processes.
        check_stop: see `fit_classifier`.

    Returns:
        The classifier, on the device of each process, and its report: steps, losses and accuracies.

    Raises:
        UserError: no training image is readable, or all have the same features.
    """
    is_training = features.readable < source.training_images
    if not is_training.any():
        raise UserError(f"none of the {source.training_images} training images can be decoded")
    weight = torch.zeros(len(classes), channels, device=processes.device)
    bias = weight.new_zeros(len(classes))
    report: dict[str, float] = {}
    if processes.leads:
        for name, part in (
            ("train", features.readable[is_training]),
            ("val", features.readable[~is_training]),
        ):
            rows = features.read(part, processes)
            labels = torch.from_numpy(source.images.classes[part]).to(rows.device)
            if name == "train":
                (weight, bias, _), report["steps"] = fit_classifier(
                    rows, labels, len(classes), steps, check_stop
                )
            scores = F.linear(rows, weight, bias)
            loss, hits = loss_and_hits(scores, labels)
            report[f"{name}_loss"] = loss / max(len(rows), 1)
            report[f"{name}_accuracy"] = hits / max(len(rows), 1)
            report[f"{name}_images"] = len(rows)
    classifier = Classifier(processes.add_up(weight), processes.add_up(bias), list(classes))
    return classifier, processes.gather([report])[0]
