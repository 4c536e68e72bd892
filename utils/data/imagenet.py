"""ImageNet (ILSVRC 2012) as it lies on disk: which images there are and what each shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files.reading import parse_index, read_text
from utils.images.listing import images_below, images_in, is_thumbnail

FOLDER = "ImageNet"
VALIDATION_IMAGES, VALIDATION_LIST = Path("val", "data"), Path("val", "val.txt")
WNIDS_FILE = Path(__file__).with_name("imagenet_wnids.txt")
"""The 1000 classes' WordNet ids, sorted: a class index is a place in this list."""


@dataclass(frozen=True)
class LabelledImages:
    """Images and their class indices, in a fixed order."""

    paths: list[Path]
    classes: np.ndarray
    """(N,) int64."""


def read_wnids() -> list[str]:
    """The 1000 WordNet ids in the order of their class indices."""
    return WNIDS_FILE.read_text().split()


def read_training_images(folder: Path, classes: int) -> LabelledImages:
    """Find the training images, `<folder>/train/data/<wnid>/*.JPEG`; any part of ImageNet will do.

    Images in folders below a class's folder belong to that class.

    Folders that are no wnids of ILSVRC make a data set of its own, in which a class index is a folder's place
    among the sorted ones; the classifier must have as many classes.

    Args:
        folder: the data set's folder.
        classes: how many classes the classifier knows.

    Raises:
        UserError: there are no images, or folders whose class cannot be known.
    """
    data = folder / "train" / "data"
    if not data.is_dir():
        raise UserError(f"no training images: {data} is missing (see datasets/README.md)")
    folders = [path for path in images_in(data).folders if not is_thumbnail(path.name)]
    index = {wnid: place for place, wnid in enumerate(read_wnids())}
    strange = [path.name for path in folders if path.name not in index]
    if strange and len(folders) != classes:
        raise UserError(
            f"{data} has {len(strange)} folders that are no ILSVRC wnids ({strange[0]} the first): a set "
            f"of its own has as many folders as the classifier has classes, {classes}, not {len(folders)}"
        )
    if strange:
        index = {path.name: place for place, path in enumerate(folders)}
    images = [
        (path, index[class_folder.name])
        for class_folder in folders
        for path in images_below(class_folder).images
    ]
    if not images:
        raise UserError(f"no training images in the folders of {data}")
    return LabelledImages([path for path, _ in images], np.array([place for _, place in images]))


def read_validation_images(folder: Path, classes: int, count: int, seed: int) -> LabelledImages:
    """Validation images drawn once, `<folder>/val/data/*.JPEG` labelled by `<folder>/val/val.txt`.

    Args:
        folder: the data set's folder.
        classes: how many classes the classifier knows.
        count: how many to draw; all where there are fewer.
        seed: of the draw.

    Raises:
        UserError: val.txt is missing or malformed, names absent images or lacks present ones.
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
        raise UserError(f"{listing} names {len(absent)} files that are not in {data}, {absent[0]} the first")
    if unlisted := sorted(present - labels.keys()):
        raise UserError(f"{listing} is short: {len(unlisted)} files in {data} lack a line, as {unlisted[0]}")
    if not labels:
        raise UserError(f"no validation images in {data}")
    names = sorted(labels)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(names))[:count])
    return LabelledImages(
        [data / names[place] for place in drawn], np.array([labels[names[place]] for place in drawn])
    )
