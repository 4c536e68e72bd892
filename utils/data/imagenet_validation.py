"""Validation images of ImageNet, labelled by val.txt, by the table of Kaggle, or by folders of classes."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from utils.data.imagenet import (
    KAGGLE_FOLDER,
    class_folders,
    images_of_classes,
    read_class_indices,
    read_class_names,
)
from utils.data.labelled_images import LabelledImages
from utils.errors import BadFileError, UserError
from utils.files.reading import parse_index, read_text
from utils.images.listing import images_below
from utils.text import shorten

VALIDATION_IMAGES, VALIDATION_LIST = Path("val", "data"), Path("val", "val.txt")

VALIDATION_FOLDERS = (VALIDATION_IMAGES, KAGGLE_FOLDER / "val", Path("val"))
"""Folders of the validation images: of this project, of Kaggle, and of PyTorch's examples."""

LISTS = (VALIDATION_LIST, Path("val.txt"))

KAGGLE_LABELS = "LOC_val_solution.csv"
"""Table of the validation labels in Kaggle's archive."""

KAGGLE_COLUMNS = ["ImageId", "PredictionString"]
"""First row of the table of Kaggle."""


def read_validation_images(folder: Path, classes: int, count: int, seed: int) -> LabelledImages:
    """Draw validation images from the first of VALIDATION_FOLDERS that exists.

    They are labelled by the first of these that exists: val/val.txt, val.txt, LOC_val_solution.csv, and the
    folders of the classes that they are in.

    Args:
        folder: the folder of the data set.
        classes: the number of classes of the classifier.
        count: the number of images to draw; all are returned if there are fewer.
        seed: the seed of the draw.

    Returns:
        The drawn images, sorted by their path in their folder.

    Raises:
        UserError: labels are missing or not valid, or do not match the images.
    """
    data = next((folder / path for path in VALIDATION_FOLDERS if (folder / path).is_dir()), None)
    if data is None:
        raise UserError(f"no validation images: {folder / 'val'} is missing (see datasets/README.md)")
    listing = next((folder / path for path in LISTS if (folder / path).is_file()), None)
    table = folder / KAGGLE_LABELS
    if listing is not None:
        images = _labelled_by(listing, _read_list(listing, classes), data)
    elif table.is_file():
        labels = {f"{image}.JPEG": index for image, index in read_kaggle_labels(table).items()}
        images = _labelled_by(table, labels, data)
    else:
        images = _in_class_folders(folder, data, classes)
    if not images.paths:
        raise UserError(f"no validation images in {data}")
    return images.draw(count, seed)


def read_kaggle_labels(table: Path) -> dict[str, int]:
    """Return the class index by the name, without suffix, of each image in LOC_val_solution.csv.

    Args:
        table: a file with one row per image: its name without suffix, and a wnid and a box per object in the
            image. All objects of an image have the same wnid.

    Raises:
        UserError: a row is not valid, or an image has two rows.
    """
    class_indices = read_class_indices()
    labels: dict[str, int] = {}
    rows = csv.reader(read_text(table).splitlines())
    try:
        if next(rows, None) != KAGGLE_COLUMNS:
            raise ValueError(f"expected {','.join(KAGGLE_COLUMNS)}")
        for row in rows:
            image, objects = row if len(row) == len(KAGGLE_COLUMNS) else ("", "")
            wnid, *_ = objects.split() or [""]
            if wnid not in class_indices or not re.fullmatch("ILSVRC2012_val_[0-9]{8}", image):
                raise ValueError(f"expected an image name and a wnid with a box, found {shorten(row)}")
            if image in labels:
                raise ValueError(f"{image} is labelled on an earlier line, too")
            labels[image] = class_indices[wnid]
    except (ValueError, csv.Error) as error:
        raise BadFileError(f"{table.name}, line {max(rows.line_num, 1)}: {error}") from error
    return labels


def _read_list(listing: Path, classes: int) -> dict[str, int]:
    """Return the class index by the name of each image in val.txt.

    Raises:
        UserError: a line is not valid, or an image has two labels.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(read_text(listing).split("\n"), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        name = name.strip()
        try:
            index = parse_index(label, classes if name else 0)
        except ValueError as error:
            expected = f"'<file name> <class index 0..{classes - 1}>'"
            raise UserError(f"{listing}, line {number}: expected {expected}, found {line[:80]!r}") from error
        if labels.setdefault(name, index) != index:
            raise UserError(f"{listing}, line {number}: {name} has label {labels[name]} on an earlier line")
    return labels


def _labelled_by(source: Path, labels: Mapping[str, int], data: Path) -> LabelledImages:
    """Return the images that a file of labels names.

    A name can have folders in front of it, those of another computer too: the image is the file with the
    longest common end of the path, or the only file of this name.

    Raises:
        UserError: a name has no image, an image has no name, or an image has two labels.
    """
    present = {path.relative_to(data).as_posix(): path for path in images_below(data).images}
    by_name: dict[str, list[str]] = {}
    for path in present:
        by_name.setdefault(PurePosixPath(path).name, []).append(path)
    index_of: dict[str, int] = {}
    absent = []
    for name, index in labels.items():
        parts = name.split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        image = next((end for end in ends if end in present), None)
        if image is None and len(by_name.get(parts[-1], [])) == 1:
            image = by_name[parts[-1]][0]
        if image is None:
            absent.append(name)
        elif index_of.setdefault(image, index) != index:
            raise UserError(f"{source} has two labels for {present[image]}, one of them for {name}")
    if absent:
        raise UserError(f"{source} lists {len(absent)} files that are not in {data} (first: {min(absent)})")
    if unlisted := sorted(present.keys() - index_of.keys()):
        raise UserError(f"{source} lacks a line for {len(unlisted)} files in {data} (first: {unlisted[0]})")
    names = sorted(index_of)
    return LabelledImages([present[name] for name in names], np.array([index_of[name] for name in names]))


def _in_class_folders(folder: Path, data: Path, classes: int) -> LabelledImages:
    """Return the images in the folders of classes.

    Raises:
        UserError: there are no folders of classes, or a class has no folder of training images.
    """
    folders = class_folders(data)
    if not folders:
        raise UserError(
            f"no validation labels: neither {folder / VALIDATION_LIST} nor {folder / KAGGLE_LABELS} exists, "
            f"and {data} has no folders of classes (see datasets/README.md)"
        )
    class_indices = read_class_names(folder, classes)
    if unknown := [path.name for path in folders if path.name not in class_indices]:
        raise UserError(
            f"{data} has {len(unknown)} folders whose classes are unknown (first: {unknown[0]}): "
            "name them as the folders of the training images"
        )
    return images_of_classes(data, folders, class_indices)
