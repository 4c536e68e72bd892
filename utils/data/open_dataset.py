"""Opening of data sets to evaluate on, by the kind of their labels."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from utils.data.google_landmarks import find_solution, read_google_landmarks
from utils.data.holidays import has_holidays_images, read_holidays
from utils.data.ilias import is_ilias, read_ilias
from utils.data.mini import prepare_mini
from utils.data.oxford_paris import find_dataset, read_dataset
from utils.data.published_sets import REVISITED_FILES
from utils.data.retrieval_dataset import RetrievalDataset
from utils.data.revisited import has_revisited_labels, read_revisited_dataset
from utils.file_names import LABELS_FOLDER, MINI

log = logging.getLogger(__name__)

LabelsKind = Literal["Oxford", "revisited", "Google Landmarks", "ILIAS", "Holidays"]

READERS: Mapping[LabelsKind, Callable[[Path], RetrievalDataset]] = {
    "Oxford": read_dataset,
    "revisited": read_revisited_dataset,
    "Google Landmarks": read_google_landmarks,
    "ILIAS": read_ilias,
    "Holidays": read_holidays,
}

KINDS_BY_NAME: Mapping[str, LabelsKind] = {
    "Oxford": "Oxford",
    "Paris": "Oxford",
    "GoogleLandmarks": "Google Landmarks",
    "ILIAS": "ILIAS",
    "Holidays": "Holidays",
    **dict.fromkeys(REVISITED_FILES, "revisited"),
}
"""Kind of labels by the name of a published set, for folders without labels."""


def labels_kind(folder: Path) -> LabelsKind | None:
    """Return the kind of labels of a data set: of the labels in its folder, else the kind its name implies.

    Returns:
        "revisited" for the labels of a revisited set, even beside a folder lab/; "Oxford" for labels in lab/;
        "Google Landmarks" for the table of its labels; "ILIAS" for the folder of its objects; "Holidays" for
        images with names of that set; None if the folder is not a data set to evaluate on.
    """
    if has_revisited_labels(folder):
        return "revisited"
    if (folder / LABELS_FOLDER).is_dir():
        return "Oxford"
    if find_solution(folder) is not None:
        return "Google Landmarks"
    if is_ilias(folder):
        return "ILIAS"
    if has_holidays_images(folder):
        return "Holidays"
    return KINDS_BY_NAME.get(folder.name)


def open_dataset(dataset: str, datasets_dir: Path, seed: int = 0, boxes: bool = True) -> RetrievalDataset:
    """Find a data set and read it; draw Mini first if it is missing.

    Args:
        dataset: the name of the data set in `datasets_dir`, or the path of its folder.
        datasets_dir: the folder of the data sets.
        seed: the seed of the images drawn for Mini.
        boxes: False if each query is its complete image, not the part in its box.

    Raises:
        UserError: the data set is missing or incomplete, or its labels are not valid.
    """
    is_mini = dataset == MINI
    data = read_folder(prepare_mini(datasets_dir, seed) if is_mini else find_dataset(dataset, datasets_dir))
    return data if boxes else data.without_boxes()


def read_folder(folder: Path) -> RetrievalDataset:
    """Read the file names, queries and labels of a data set without opening an image.

    Raises:
        UserError: the data set is incomplete, or its labels are not valid.
    """
    kind = labels_kind(folder) or "Oxford"
    if kind == "revisited" and (folder / LABELS_FOLDER).is_dir():
        log.warning("note: %s has revisited labels, so %s/ in it is ignored", folder, LABELS_FOLDER)
    if kind == "Holidays":
        log.info("%s is read as INRIA Holidays, by the names of its images", folder)
    return READERS[kind](folder)
