"""Data sets to evaluate on: the one place that decides which kind of labels a folder has."""

import logging
from pathlib import Path
from typing import Literal

from utils.data.oxford_paris import RetrievalDataset, read_dataset
from utils.data.revisited import has_revisited_labels, read_revisited_dataset
from utils.file_names import LABELS_FOLDER
from utils.prepare.recipes import EXPECTED, REVISITED_LABELS

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
    return "revisited" if folder.name in REVISITED_LABELS else None


def open_dataset(folder: Path) -> RetrievalDataset:
    """Read a data set's file names, queries and labels by their kind; no image is opened.

    Raises:
        UserError: the data set is incomplete or its labels are malformed.
    """
    if labels_kind(folder) != "revisited":
        return read_dataset(folder)
    if (folder / LABELS_FOLDER).is_dir():
        log.warning("note: %s has revisited labels, so %s/ in it is ignored", folder, LABELS_FOLDER)
    return read_revisited_dataset(folder)
