"""ImageNet's validation labels: from the forms that they are handed out in to the one list that is read."""

import re
import shutil
from pathlib import Path

from utils.data.imagenet import VALIDATION_IMAGES, VALIDATION_LIST, read_wnids
from utils.errors import UserError
from utils.files.reading import parse_index, read_text
from utils.files.writing import replace_file
from utils.prepare.devkit_classes import read_classes
from utils.prepare.recipes import CAFFE_LABELS, DEVKIT_CLASSES, DEVKIT_LABELS, VALIDATION_LABELS


def write_validation_list(folder: Path) -> None:
    """Writes val/val.txt, `<file name> <class index>` a line, from what came in the archives.

    Args:
        folder: ImageNet's.

    Raises:
        UserError: the labels are incomplete or malformed.
    """
    listing, labels = folder / VALIDATION_LIST, folder / VALIDATION_LABELS
    if listing.exists():
        return
    try:
        if (labels / CAFFE_LABELS).exists():
            text = (labels / CAFFE_LABELS).read_text(encoding="utf-8", errors="replace")
        else:
            text = from_devkit(labels / DEVKIT_LABELS, labels / DEVKIT_CLASSES)
        check(text, folder / VALIDATION_IMAGES)
    except UserError:
        shutil.rmtree(labels)  # or the next run would take them for done
        raise
    with replace_file(listing) as file:
        file.write(text.encode())


def check(text: str, images: Path) -> None:
    """Checks that each line labels an image, and that each image has its line.

    Raises:
        UserError: one does not, or has none.
    """
    labelled = set()
    for line in text.splitlines():
        if not re.fullmatch(r"ILSVRC2012_val_[0-9]{8}\.JPEG [0-9]{1,3}", line):
            raise UserError(f"the labels of ImageNet's validation images are malformed: {line!r}")
        labelled.add(line.split()[0])
    there = {path.name for path in images.iterdir()}
    if labelled != there:
        raise UserError(
            f"there are {len(labelled)} labels for {len(there)} images in {images}, "
            f"and {len(labelled ^ there)} of either without the other"
        )


def from_devkit(labels: Path, classes: Path) -> str:
    """The list from the development kit's files.

    The kit numbers classes in an order of its own; an index here is the place of the class's wnid among the
    sorted ones.

    Args:
        labels: a number of a class for each validation image, in their order.
        classes: the kit's meta.mat, which has the wnid of each number.

    Raises:
        UserError: a file is missing or malformed.
    """
    for path in (labels, classes):
        if not path.is_file():
            raise UserError(f"{path.name} is missing: the archive of the labels is another one")
    try:
        wnids = read_classes(classes)
        places = {wnid: place for place, wnid in enumerate(read_wnids())}
        indices = [places[wnids[parse_index(line, 10_000)]] for line in read_text(labels).split()]
    except (ValueError, KeyError, UserError) as error:
        raise UserError(f"{classes} and {labels} are not those of ILSVRC 2012") from error
    return "".join(f"ILSVRC2012_val_{number:08d}.JPEG {index}\n" for number, index in enumerate(indices, 1))
