"""Google Landmarks v2, retrieval: images in folders by their ids, and a table of the labels.

Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, https://github.com/cvdfoundation/google-landmark.
"""

import re
from pathlib import Path

from utils.data.retrieval_dataset import Query, RetrievalDataset, note_missing_images
from utils.errors import BadFileError, UserError
from utils.files.tables import read_table
from utils.images.listing import images_below, report_left_out
from utils.text import first_names, shorten

SOLUTION = "retrieval_solution_v2.1.csv"
SOLUTION_FOLDERS = (".", "test", "metadata")
"""Folders, in the folder of the data set, that may have the table."""

INDEX_FOLDER, TEST_FOLDER = "index", "test"

PUBLIC, PRIVATE, IGNORED = USAGES = ("public", "private", "ignored")
NO_IMAGES = "None"
"""Text in place of the images of an ignored query."""

IMAGE_ID = re.compile("[0-9a-z]{16}")

METRICS = ("mAP@100",)
"""Score of the published evaluation."""


def find_solution(folder: Path) -> Path | None:
    """Return the table of the labels, or None if the folder has none."""
    paths = (folder / parent / SOLUTION for parent in SOLUTION_FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def read_google_landmarks(folder: Path) -> RetrievalDataset:
    """Read the file names, queries and labels of Google Landmarks v2 without opening an image.

    The database is the images below index/. Queries are the images below test/ that the table labels as
    Public or Private, which are the protocols; each is a complete image. Labels of missing images are counted
    in a note and kept, since recall is over all listed positives.

    Raises:
        UserError: the table or an image of a query is missing, a line is not valid, or there are no images.
    """
    solution = find_solution(folder)
    if solution is None:
        raise UserError(f"{folder} has no {SOLUTION} (see datasets/README.md)")
    protocols = _read_solution(solution)
    queries = sorted(
        (query for of_usage in protocols.values() for query in of_usage), key=lambda query: query.name
    )
    if not queries:
        raise BadFileError(f"{solution} has no line that is Public or Private")
    files = {query.name: _file(folder / TEST_FOLDER, query.name) for query in queries}
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        raise UserError(f"{len(missing)} images of queries are missing ({first_names(missing)})")
    images = _read_index(folder / INDEX_FOLDER)
    note_missing_images(queries, images, folder / INDEX_FOLDER)
    return RetrievalDataset(folder, images, queries, files, protocols, METRICS)


def _read_solution(path: Path) -> dict[str, list[Query]]:
    """Return the queries of each protocol that has any, in the order of the table.

    Raises:
        UserError: a line is not valid, or a query has two lines.
    """
    protocols: dict[str, list[Query]] = {PUBLIC: [], PRIVATE: []}
    lines: dict[str, int] = {}
    for number, cells in read_table(path, ("id", "images", "usage")):
        name, usage = cells["id"], cells["usage"].lower()
        images = [] if cells["images"] == NO_IMAGES else cells["images"].split()
        if usage not in USAGES:
            raise BadFileError(f"{path}, line {number}: Usage {shorten(cells['usage'])} is unknown")
        for image in (name, *images):
            if not IMAGE_ID.fullmatch(image):
                raise BadFileError(f"{path}, line {number}: {shorten(image)} is not the id of an image")
        if lines.setdefault(name, number) != number:
            raise BadFileError(f"{path}, line {number}: {name} is also on line {lines[name]}")
        if usage != IGNORED and images:
            good = frozenset(images)
            protocols[usage].append(Query(name, name, None, good, frozenset(), frozenset()))
    return {usage: queries for usage, queries in protocols.items() if queries}


def _read_index(folder: Path) -> dict[str, Path]:
    """Return the file of each image of the database by its id.

    Raises:
        UserError: there are no images, or two have the same id.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: unpack the archives of the index images there")
    contents = images_below(folder)
    report_left_out(contents, folder)
    images: dict[str, Path] = {}
    for path in contents.images:
        if images.setdefault(path.stem, path) != path:
            raise UserError(f"{images[path.stem]} and {path} have the same id: keep one of them")
    if not images:
        raise UserError(f"no images in {folder} or the folders in it")
    return images


def _file(folder: Path, image: str) -> Path:
    """Return the file of an image, in folders named by the first three characters of its id."""
    return folder.joinpath(*image[:3], f"{image}.jpg")
