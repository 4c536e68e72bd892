"""Data sets to evaluate on: the one place that decides which kind of labels a folder has."""

import logging
from pathlib import Path
from typing import Literal

from utils.data.mini import prepare_mini
from utils.data.oxford_paris import RetrievalDataset, find_dataset, read_dataset
from utils.data.published import EXPECTED, REVISITED_FILES
from utils.data.revisited import has_revisited_labels, read_revisited_dataset
from utils.file_names import LABELS_FOLDER, MINI

log = logging.getLogger(__name__)

LabelsKind = Literal["Oxford", "revisited"]


def labels_kind(folder: Path) -> LabelsKind | None:
    """Decide which labels of a folder count: those that are there, or else those that its name asks for.

    Returns:
        "revisited" for a revisited set's labels, even beside a folder lab/; "Oxford" for those in lab/; None
        for a folder that is no data set to evaluate on.
    """
    if has_revisited_labels(folder):
        return "revisited"
    if (folder / LABELS_FOLDER).is_dir() or folder.name in EXPECTED:
        return "Oxford"
    return "revisited" if folder.name in REVISITED_FILES else None


def open_dataset(dataset: str, datasets_dir: Path, seed: int = 0) -> RetrievalDataset:
    """Find a data set and read it; Mini is drawn first if it is not there.

    Args:
        dataset: its name in the folder of the data sets, or the path of its folder.
        datasets_dir: the folder of the data sets.
        seed: seed of the images that are drawn for Mini.

    Raises:
        UserError: there is no such data set, it is incomplete or its labels are malformed.
    """
    is_mini = dataset == MINI
    return read_folder(prepare_mini(datasets_dir, seed) if is_mini else find_dataset(dataset, datasets_dir))


def read_folder(folder: Path) -> RetrievalDataset:
    """Read a data set's file names, queries and labels by their kind; no image is opened.

    Raises:
        UserError: the data set is incomplete or its labels are malformed.
    """
    if labels_kind(folder) != "revisited":
        return read_dataset(folder)
    if (folder / LABELS_FOLDER).is_dir():
        log.warning("note: %s has revisited labels, so %s/ in it is ignored", folder, LABELS_FOLDER)
    return read_revisited_dataset(folder)
