"""Conversion of the published validation labels of ImageNet to val.txt."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from utils.data.imagenet import read_class_indices
from utils.data.imagenet_validation import (
    KAGGLE_LABELS,
    VALIDATION_IMAGES,
    VALIDATION_LIST,
    read_kaggle_labels,
)
from utils.errors import UserError
from utils.files.folders import replace_folder
from utils.files.reading import parse_index, read_bytes, read_text
from utils.files.writing import replace_file
from utils.prepare.devkit_classes import read_classes
from utils.prepare.recipes import (
    CAFFE_LABELS,
    DEVKIT_CLASSES,
    DEVKIT_LABELS,
    VALIDATION_LABELS,
)


def write_validation_list(folder: Path) -> None:
    """Write val/val.txt, `<file name> <class index>` per line, from the unpacked labels.

    Args:
        folder: the folder of ImageNet.

    Raises:
        UserError: the labels are incomplete or not valid.
    """
    listing, labels = folder / VALIDATION_LIST, folder / VALIDATION_LABELS
    if listing.exists():
        return
    try:
        if (labels / KAGGLE_LABELS).exists():
            text = list_from_kaggle(labels / KAGGLE_LABELS)
        elif (labels / CAFFE_LABELS).exists():
            text = (labels / CAFFE_LABELS).read_text(encoding="utf-8", errors="replace")
            text = re.sub(r"^.*/", "", text, flags=re.MULTILINE)  # folders before the names
        else:
            text = list_from_devkit(labels / DEVKIT_LABELS, labels / DEVKIT_CLASSES)
        check_list(text, folder / VALIDATION_IMAGES)
    except UserError:
        shutil.rmtree(labels)  # the next run unpacks them again
        raise
    with replace_file(listing) as file:
        file.write(text.encode())


def copy_labels_beside(folder: Path, archives: Iterable[Path]) -> None:
    """Copy Kaggle's validation labels from the folder of one of the archives, unless there are labels.

    Args:
        folder: the folder of ImageNet.
        archives: the archives of the user, none of which has labels.

    Raises:
        UserError: the labels cannot be read or written.
    """
    target = folder / VALIDATION_LABELS
    candidates = (archive.with_name(KAGGLE_LABELS) for archive in archives)
    source = next((path for path in candidates if path.is_file()), None)
    if source is None or target.exists():
        return
    data = read_bytes(source)
    with replace_folder(target) as draft, replace_file(draft / KAGGLE_LABELS) as file:
        file.write(data)


def check_list(text: str, images: Path) -> None:
    """Check that each line labels an image, and that each image has a line.

    Raises:
        UserError: a line is not valid, an image is missing, or an image has no line.
    """
    labelled = set()
    for line in text.splitlines():
        if not re.fullmatch(r"ILSVRC2012_val_[0-9]{8}\.JPEG [0-9]{1,3}", line):
            raise UserError(f"the labels of ImageNet's validation images are not valid: {line!r}")
        labelled.add(line.split()[0])
    present = {path.name for path in images.iterdir()}
    if labelled != present:
        raise UserError(
            f"there are {len(labelled)} labels for {len(present)} images in {images}: "
            f"{len(labelled - present)} labels have no image, {len(present - labelled)} images have no label"
        )


def list_from_devkit(labels: Path, classes: Path) -> str:
    """Return the text of val.txt made from files of the development kit.

    The class numbers of the kit are in another order than class indices, which are the indices of the sorted
    wnids.

    Args:
        labels: a file with the class number of each validation image, in the order of the images.
        classes: meta.mat of the kit, which has the wnid of each class number.

    Raises:
        UserError: a file is missing or not valid.
    """
    for path in (labels, classes):
        if not path.is_file():
            raise UserError(f"{path.name} is missing: this is not the archive of the labels")
    try:
        wnids = read_classes(classes)
        class_indices = read_class_indices()
        indices = [class_indices[wnids[parse_index(line, 10_000)]] for line in read_text(labels).split()]
    except (ValueError, KeyError, UserError) as error:
        raise UserError(f"{classes} and {labels} are not valid files of ILSVRC 2012") from error
    return "".join(f"ILSVRC2012_val_{number:08d}.JPEG {index}\n" for number, index in enumerate(indices, 1))


def list_from_kaggle(table: Path) -> str:
    """Return the text of val.txt made from Kaggle's table, LOC_val_solution.csv.

    Raises:
        UserError: a row is not valid, or an image has two rows.
    """
    return "".join(f"{image}.JPEG {index}\n" for image, index in sorted(read_kaggle_labels(table).items()))
