"""ImageNet (ILSVRC 2012) on disk: its classes and its training images."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.data.labelled_images import LabelledImages
from utils.errors import UserError
from utils.images.listing import FolderContents, images_below, images_in, is_thumbnail, report_left_out

log = logging.getLogger(__name__)

FOLDER = "ImageNet"
WNIDS_FILE = Path(__file__).with_name("imagenet_wnids.txt")
"""The WordNet ids of the 1000 classes, sorted: a class index is an index in this list."""

KAGGLE_FOLDER = Path("ILSVRC", "Data", "CLS-LOC")
"""Folder of the images in Kaggle's archive."""

TRAINING_FOLDERS = (Path("train", "data"), KAGGLE_FOLDER / "train", Path("train"))
"""Folders of the training images: of this project, of Kaggle, and of PyTorch's examples."""


def read_wnids() -> list[str]:
    """Return the 1000 WordNet ids in the order of their class indices."""
    return WNIDS_FILE.read_text().split()


def read_class_indices() -> dict[str, int]:
    """Return the class index of each of the 1000 WordNet ids."""
    return {wnid: index for index, wnid in enumerate(read_wnids())}


def read_training_images(folder: Path, classes: int) -> LabelledImages:
    """Find the training images, `<wnid>/*.JPEG` in the first of TRAINING_FOLDERS that exists.

    Any part of ImageNet is accepted. Images in folders below the folder of a class belong to that class.

    Args:
        folder: the folder of the data set.
        classes: the number of classes of the classifier.

    Raises:
        UserError: there are no images, or the class of a folder is unknown.
    """
    data = training_folder(folder)
    images = images_of_classes(data, class_folders(data), read_class_names(folder, classes))
    if not images.paths:
        raise UserError(f"no training images in the folders of {data}")
    return images


def is_imagenet(folder: Path) -> bool:
    """Return True if a folder of any name has a training folder that is named by an ILSVRC wnid."""
    folders = [folder / path for path in TRAINING_FOLDERS if (folder / path).is_dir()]
    wnids = read_class_indices().keys()
    return bool(folders) and any(path.name in wnids for path in class_folders(folders[0]))


def training_folder(folder: Path) -> Path:
    """Return the folder of the training images of a data set.

    Raises:
        UserError: it is missing.
    """
    for path in TRAINING_FOLDERS:
        if (folder / path).is_dir():
            return folder / path
    raise UserError(f"no training images: {folder / 'train'} is missing (see datasets/README.md)")


def read_class_names(folder: Path, classes: int) -> dict[str, int]:
    """Return the class index by the name of the folder of a class.

    If a training folder is not named by an ILSVRC wnid, the data set is taken for another one than ImageNet.
    The class index of a folder is then its index among the sorted folders, and there must be one folder per
    class.

    Args:
        folder: the folder of the data set.
        classes: the number of classes of the classifier.

    Raises:
        UserError: there are no training images, or the class of a folder is unknown.
    """
    data = training_folder(folder)
    names = [path.name for path in class_folders(data)]
    class_indices = read_class_indices()
    unknown = [name for name in names if name not in class_indices]
    if unknown and len(names) != classes:
        raise UserError(
            f"{data} has {len(unknown)} folders that are not ILSVRC wnids (first: {unknown[0]}): a data set "
            f"other than ImageNet needs one folder per class, {classes}, but there are {len(names)}"
        )
    return {name: index for index, name in enumerate(names)} if unknown else class_indices


def class_folders(folder: Path) -> list[Path]:
    """Return the folders of classes in a folder, sorted by name."""
    return [path for path in images_in(folder).folders if not is_thumbnail(path.name)]


def images_of_classes(
    folder: Path, folders: Sequence[Path], class_indices: Mapping[str, int]
) -> LabelledImages:
    """Return the images in the folders of classes, folder by folder.

    Images beside these folders are left out with a note, since their class is unknown.

    Args:
        folder: the folder that they are in.
        folders: the folders of classes.
        class_indices: the class index by the name of a folder.
    """
    images: list[tuple[Path, int]] = []
    all_contents = FolderContents.empty()
    for class_folder in folders:
        below = images_below(class_folder)
        all_contents.extend(below)
        images.extend((path, class_indices[class_folder.name]) for path in below.images)
    report_left_out(all_contents, folder)
    if without_class := images_in(folder).images:
        log.warning("note: left out %d images of %s that have no class", len(without_class), folder)
    indices = np.array([index for _, index in images], np.int64)
    return LabelledImages([path for path, _ in images], indices)
