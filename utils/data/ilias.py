"""ILIAS: queries and positives in one folder per object, and distractors.

Kordopatis-Zilos et al., "ILIAS: Instance-Level Image retrieval At Scale", CVPR 2025,
https://github.com/ilias-vrg/ilias.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.errors import UserError
from utils.images.listing import images_below, images_in, report_left_out

log = logging.getLogger(__name__)

CORE = "ilias_core"
"""Folder of the objects. Each has a folder of its queries, and one of its positives."""

QUERIES_FOLDER, POSITIVES_FOLDER = "query", "pos"
DISTRACTORS_FOLDER = "yfcc100m"
"""Folder of the distractors, unpacked."""

QUERY_NAME, POSITIVE_NAME = re.compile("Q[0-9]+_[0-9]+"), re.compile("P[0-9]+_[0-9]+")

METRICS = ("mAP@1000",)
"""Score of the published evaluation."""


def is_ilias(folder: Path) -> bool:
    """Return whether a folder has the folder of the objects of ILIAS."""
    return (folder / CORE).is_dir()


def read_ilias(folder: Path) -> RetrievalDataset:
    """Read the file names of ILIAS without opening an image.

    The database is the positives of all objects, followed by the distractors. As in the published
    evaluation, each query is a complete image, not its bounding box. Queries are not in the database.

    Raises:
        UserError: an image has no name of ILIAS, two have the same name, or there are no queries.
    """
    queries: list[Query] = []
    query_images: dict[str, Path] = {}
    images: dict[str, Path] = {}
    for item in images_in(folder / CORE).folders:
        positives = _images(item / POSITIVES_FOLDER, POSITIVE_NAME, images)
        images |= positives
        of_item = _images(item / QUERIES_FOLDER, QUERY_NAME, query_images)
        query_images |= of_item
        queries += [
            Query(name, name, None, frozenset(positives), frozenset(), frozenset()) for name in of_item
        ]
    if not queries:
        raise UserError(f"no queries in {folder / CORE}: it needs <object>/{QUERIES_FOLDER}/Q000_00.jpg")
    distractors = _read_distractors(folder / DISTRACTORS_FOLDER)
    log.info("%s: %d positives, %d distractors", folder, len(images), len(distractors))
    return RetrievalDataset(folder, images | distractors, queries, query_images, metrics=METRICS)


def _images(folder: Path, pattern: re.Pattern[str], earlier: Mapping[str, Path]) -> dict[str, Path]:
    """Return the images of a folder of an object by name.

    Args:
        folder: the folder.
        pattern: pattern of the names.
        earlier: images of other objects, whose names must differ.

    Raises:
        UserError: a name has another form, or is also that of another image.
    """
    images: dict[str, Path] = {}
    for path in images_in(folder).images if folder.is_dir() else ():
        if not pattern.fullmatch(path.stem):
            raise UserError(f"{path} has no name of ILIAS, such as Q000_00.jpg or P000_00.jpg: move it away")
        other = earlier.get(path.stem) or images.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{other} and {path} have the same name: keep one of them")
    return images


def _read_distractors(folder: Path) -> dict[str, Path]:
    """Return the distractors by their paths without suffix; none if there is no such folder.

    Raises:
        UserError: the folder has archives, but no images.
    """
    if not folder.is_dir():
        return {}
    contents = images_below(folder)
    report_left_out(contents, folder)
    if not contents.images and contents.others:
        raise UserError(f"no images in {folder}: unpack its archives into it, each into a folder of its name")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in contents.images}
