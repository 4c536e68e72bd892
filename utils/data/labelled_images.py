"""Images of any classes: folders of one folder per class, and list files of one `path label` per line."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import UserError
from utils.files.reading import read_text
from utils.images.listing import FolderContents, images_below, images_in, is_thumbnail, report_left_out
from utils.text import digest_of_names, first_names

log = logging.getLogger(__name__)

TRAINING_FOLDER, VALIDATION_FOLDER = "train", "val"

DIGEST_CHARACTERS = 16

LEAST_CLASSES = 2

Labels = Mapping[str, Sequence[Path]]
"""The images of each label, sorted by label and by path."""


@dataclass(frozen=True)
class LabelledImages:
    """Images and their class indices, in a fixed order."""

    paths: list[Path]
    classes: np.ndarray
    """Class indices, (N,) int64."""

    def followed_by(self, others: "LabelledImages") -> "LabelledImages":
        """Return these images and further ones after them."""
        return LabelledImages(self.paths + others.paths, np.concatenate([self.classes, others.classes]))

    def draw(self, count: int, seed: int) -> "LabelledImages":
        """Return images drawn without replacement, in their order here; all if there are not more."""
        drawn = np.sort(np.random.default_rng(seed).permutation(len(self.paths))[:count])
        return LabelledImages([self.paths[index] for index in drawn], self.classes[drawn])


class ClassifiedImages(NamedTuple):
    """Images to train and to validate with."""

    training: LabelledImages
    validation: LabelledImages
    classes: Sequence[str] = ()
    """Names of the classes, by class index; none for the classes of ImageNet."""
    split: str = ""
    """The origin of the validation images."""
    summary: str = ""
    """Counts and a digest of all images and labels, by which a resumed training recognises them."""


def read_classified_images(
    images: Path,
    validation: Path | None = None,
    *,
    share: float = 0.2,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> ClassifiedImages:
    """Read images of any classes, and split them if there are no separate validation images.

    Args:
        images: a folder or a list file, see `read_labels`; or a folder with the folders `train` and `val`,
            each with one folder per class.
        validation: a folder or a list file of validation images.
        share: the share of the images of each class that is split off for validation otherwise.
        seed: the seed of the split.
        classes: the names of the classes, by class index; by default, the sorted labels of the training
            images.

    Raises:
        UserError: images or labels are missing, a label is not among the classes, or there is one class.
    """
    training_source, validation_source, split = _sources(images, validation, share, seed)
    training = read_labels(training_source)
    if len(training) < LEAST_CLASSES:
        raise UserError(
            f"{training_source} has one class, {next(iter(training))}: a classifier needs at least two"
        )
    if validation_source is None:
        training, held_out = _split_labels(training, share, seed)
    else:
        held_out = read_labels(validation_source)
    if not held_out:
        raise UserError(
            f"no class of {images} has two images, so that none is left for validation: add images, "
            "or name a folder by --validation"
        )
    names = sorted(training) if classes is None else list(classes)
    by_class = (
        _with_indices(training, names, training_source),
        _with_indices(held_out, names, validation_source or images),
    )
    root = images if images.is_dir() else images.parent
    digest = digest_of_names(
        f"{label}\0{os.path.relpath(path, root)}"
        for labels in (training, held_out)
        for label, paths in labels.items()
        for path in paths
    )
    counts = f"{len(by_class[0].paths)} and {len(by_class[1].paths)} images of {len(training)} classes"
    return ClassifiedImages(*by_class, names, split, f"{counts}, digest {digest[:DIGEST_CHARACTERS]}")


def read_labels(source: Path) -> Labels:
    """Read labelled images.

    Args:
        source: a folder with one folder per class, which holds the images of that class at any depth; or a
            text file with one `path label` per line, where the label is the last word and paths are relative
            to the file.

    Raises:
        UserError: the source is missing, a class has no images, a line has no label, or a file is missing.
    """
    if source.is_dir():
        return _read_class_folders(source)
    if not source.exists():
        raise UserError(f"{source} is missing: name a folder with one folder per class, or a list of images")
    return _read_list(source)


def _sources(images: Path, validation: Path | None, share: float, seed: int) -> tuple[Path, Path | None, str]:
    """Return the sources of training and validation images, and the name of the split.

    Raises:
        UserError: there are two sources of validation images.
    """
    folders = (images / TRAINING_FOLDER, images / VALIDATION_FOLDER)
    if not all(folder.is_dir() for folder in folders):
        split = f"seed {seed}, share {share:g}" if validation is None else str(validation)
        return images, validation, split
    if validation is not None:
        raise UserError(
            f"{images} has a folder {VALIDATION_FOLDER} of validation images: leave out --validation, "
            f"or name {folders[0]} by --images"
        )
    contents = images_in(images)
    if others := [path.name for path in contents.folders if path not in folders]:
        log.warning("note: left out %s of %s", first_names(others), images)
    return *folders, f"{TRAINING_FOLDER} and {VALIDATION_FOLDER}"


def _read_class_folders(folder: Path) -> Labels:
    """Return the images in the class folders of a folder.

    Raises:
        UserError: there are no class folders, or some have no images.
    """
    contents = images_in(folder)
    class_folders = [path for path in contents.folders if not is_thumbnail(path.name)]
    if not class_folders:
        raise UserError(f"{folder} has no class folders: put the images of each class into a folder of it")
    if contents.images:
        log.warning("note: left out %d images of %s that have no class", len(contents.images), folder)
    labels: dict[str, Sequence[Path]] = {}
    all_contents = FolderContents.empty()
    for class_folder in class_folders:
        below = images_below(class_folder)
        all_contents.extend(below)
        labels[class_folder.name] = below.images
    report_left_out(all_contents, folder)
    if empty := [label for label, paths in labels.items() if not paths]:
        raise UserError(
            f"{folder} has {len(empty)} class folders without images ({first_names(empty)}): "
            "add images, or remove the folders"
        )
    return dict(sorted(labels.items()))


def _read_list(file: Path) -> Labels:
    """Return the images that a list file names.

    Raises:
        UserError: a line has no label, an image has two labels, or an image is missing.
    """
    label_of: dict[Path, str] = {}
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        name, *label = line.strip().rsplit(maxsplit=1)
        if not label:
            raise UserError(f"{file}, line {number}: expected '<path> <label>', found {line[:80]!r}")
        path = file.parent / name
        if label_of.setdefault(path, label[0]) != label[0]:
            raise UserError(f"{file}, line {number}: {name} has label {label_of[path]} on an earlier line")
    if not label_of:
        raise UserError(f"{file} lists no images: expected '<path> <label>' on each line")
    # A pipe is listed and unreadable, as in a folder.
    missing = [path for path in label_of if not os.path.exists(path) or os.path.isdir(path)]  # noqa: PTH110,PTH112
    if missing:
        raise UserError(f"{file} lists {len(missing)} images that do not exist (first: {missing[0]})")
    labels: dict[str, list[Path]] = {}
    for path in sorted(label_of):
        labels.setdefault(label_of[path], []).append(path)
    return dict(sorted(labels.items()))


def _split_labels(labels: Labels, share: float, seed: int) -> tuple[Labels, Labels]:
    """Split the images of each class at random into training and validation images.

    A class of two or more images keeps at least one image in each part. A single image is for training.
    """
    training: dict[str, list[Path]] = {}
    validation: dict[str, list[Path]] = {}
    for index, (label, paths) in enumerate(labels.items()):
        count = min(max(round(share * len(paths)), 1), len(paths) - 1)
        drawn = set(np.random.default_rng([seed, index]).permutation(len(paths))[:count].tolist())
        training[label] = [path for position, path in enumerate(paths) if position not in drawn]
        if drawn:
            validation[label] = [paths[position] for position in sorted(drawn)]
    return training, validation


def _with_indices(labels: Labels, classes: Sequence[str], source: Path) -> LabelledImages:
    """Return the images with their class indices.

    Raises:
        UserError: a label is not among the classes.
    """
    if unknown := sorted(labels.keys() - set(classes)):
        raise UserError(
            f"{source} has {len(unknown)} labels that are not among the {len(classes)} classes of the "
            f"training or its classifier (first: {unknown[0]})"
        )
    index_of = {name: index for index, name in enumerate(classes)}
    counts = [len(paths) for paths in labels.values()]
    indices = np.repeat(np.array([index_of[label] for label in labels], np.int64), counts)
    return LabelledImages([path for paths in labels.values() for path in paths], indices)
