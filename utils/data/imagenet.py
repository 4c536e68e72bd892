"""ImageNet (ILSVRC 2012) on disk: its images and their classes."""

from pathlib import Path

import numpy as np

from utils.data.labelled_images import LabelledImages
from utils.errors import UserError
from utils.files.reading import parse_index, read_text
from utils.images.listing import FolderContents, images_below, images_in, is_thumbnail, report_left_out

FOLDER = "ImageNet"
VALIDATION_IMAGES, VALIDATION_LIST = Path("val", "data"), Path("val", "val.txt")
WNIDS_FILE = Path(__file__).with_name("imagenet_wnids.txt")
"""The WordNet ids of the 1000 classes, sorted: a class index is an index in this list."""


def read_wnids() -> list[str]:
    """Return the 1000 WordNet ids in the order of their class indices."""
    return WNIDS_FILE.read_text().split()


def read_class_indices() -> dict[str, int]:
    """Return the class index of each of the 1000 WordNet ids."""
    return {wnid: index for index, wnid in enumerate(read_wnids())}


def read_training_images(folder: Path, classes: int) -> LabelledImages:
    """Find the training images, `<folder>/train/data/<wnid>/*.JPEG`.

    Any part of ImageNet is accepted. Images in folders below the folder of a class belong to that class.

    If a folder is not named by an ILSVRC wnid, the data set is taken for another one than ImageNet. The class
    index of a folder is then its index among the sorted folders, and there must be one folder per class.

    Args:
        folder: the folder of the data set.
        classes: the number of classes of the classifier.

    Raises:
        UserError: there are no images, or the class of a folder is unknown.
    """
    data = folder / "train" / "data"
    if not data.is_dir():
        raise UserError(f"no training images: {data} is missing (see datasets/README.md)")
    folders = [path for path in images_in(data).folders if not is_thumbnail(path.name)]
    class_indices = read_class_indices()
    unknown = [path.name for path in folders if path.name not in class_indices]
    if unknown and len(folders) != classes:
        raise UserError(
            f"{data} has {len(unknown)} folders that are not ILSVRC wnids (first: {unknown[0]}): a data set "
            f"other than ImageNet needs one folder per class, {classes}, but there are {len(folders)}"
        )
    if unknown:
        class_indices = {path.name: index for index, path in enumerate(folders)}
    images: list[tuple[Path, int]] = []
    all_contents = FolderContents.empty()
    for class_folder in folders:
        below = images_below(class_folder)
        all_contents.extend(below)
        images.extend((path, class_indices[class_folder.name]) for path in below.images)
    report_left_out(all_contents, data)
    if not images:
        raise UserError(f"no training images in the folders of {data}")
    return LabelledImages([path for path, _ in images], np.array([index for _, index in images]))


def read_validation_images(folder: Path, classes: int, count: int, seed: int) -> LabelledImages:
    """Draw validation images, `<folder>/val/data/*.JPEG`, with the labels in `<folder>/val/val.txt`.

    Args:
        folder: the folder of the data set.
        classes: the number of classes of the classifier.
        count: the number of images to draw; all are returned if there are fewer.
        seed: the seed of the draw.

    Returns:
        The drawn images, sorted by file name.

    Raises:
        UserError: val.txt is missing or not valid, or its lines do not match the images.
    """
    data, listing = folder / VALIDATION_IMAGES, folder / VALIDATION_LIST
    if not data.is_dir() or not listing.is_file():
        missing = listing if data.is_dir() else data
        raise UserError(f"no validation images: {missing} is missing (see datasets/README.md)")
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
    present = {path.name for path in images_in(data).images}
    if absent := sorted(labels.keys() - present):
        raise UserError(f"{listing} lists {len(absent)} files that are not in {data} (first: {absent[0]})")
    if unlisted := sorted(present - labels.keys()):
        raise UserError(f"{listing} lacks a line for {len(unlisted)} files in {data} (first: {unlisted[0]})")
    if not labels:
        raise UserError(f"no validation images in {data}")
    names = sorted(labels)
    images = LabelledImages([data / name for name in names], np.array([labels[name] for name in names]))
    return images.draw(count, seed)
