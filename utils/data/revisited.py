"""The revisited Oxford and Paris sets: images, queries and the labels of three protocols.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES, read_images, read_query_images
from utils.data.published_sets import REVISITED_FILES
from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.data.revisited_labels import Labels, read_labels, read_pickled_labels
from utils.errors import UserError
from utils.file_names import DISTRACTORS_LIST, IMAGES_FOLDER
from utils.files.reading import read_text
from utils.text import first_names

log = logging.getLogger(__name__)

EASY, MEDIUM, HARD = PROTOCOLS = ("easy", "medium", "hard")

METRICS = ("mP@1", "mP@5", "mP@10")
"""Metrics of the published evaluation beside mAP."""


def has_revisited_labels(folder: Path) -> bool:
    """Return True if a folder, of any name, has the labels of a revisited set, as published or as JSON."""
    return bool(_labels_files(folder))


def read_revisited_dataset(folder: Path) -> RetrievalDataset:
    """Read the file names, queries and labels of a revisited set without opening an image.

    The database is the images of `imlist` in the labels, in the order of the list, followed by the images in
    distractors.txt (which Prepare_Datasets.py writes), in the order of their file names. Query images are in
    the database only if `imlist` has them; their files are in queries/ or jpg/. Any other image in jpg/ is
    left out with a note.

    A query has the name of its image; a second query of the same image is named `<image>_2`. `queries` has
    the labels of the Medium protocol: good means easy, ok means hard.

    Raises:
        UserError: the labels are missing or not valid, the folder has the labels of two sets, or images are
            missing.
    """
    name, labels_file = _labels_file(folder)
    labels = (read_pickled_labels if labels_file.suffix == ".pkl" else read_labels)(labels_file)
    _check_unique(labels_file, labels["imlist"])
    files = read_images(folder)
    query_files = read_query_images(folder, files)
    labelled = dict.fromkeys([*labels["imlist"], *labels["qimlist"]])
    distractors = set(read_distractors(folder)) - labelled.keys() - CORRUPT_PARIS_IMAGES
    expected = labelled | dict.fromkeys(sorted(distractors))
    of_database = {*labels["imlist"], *distractors}
    missing = [image for image in expected if image not in (files if image in of_database else query_files)]
    if missing:
        command = f"Prepare_Datasets.py {name}{' --distractors <their folder>' if distractors else ''}"
        raise UserError(
            f"{folder / IMAGES_FOLDER} lacks {len(missing)} of its {len(expected)} images "
            f"(first: {missing[0]}): move {folder} away and run {command}"
        )
    unexpected = files.keys() - expected.keys()
    if unexpected:
        log.warning(
            "note: left out %d images of %s that %s does not name (%s): list distractors in %s",
            len(unexpected),
            folder / IMAGES_FOLDER,
            labels_file.name,
            first_names(unexpected),
            folder / DISTRACTORS_LIST,
        )
    database = [*labels["imlist"], *(image for image in files if image in distractors)]
    protocols = _protocols(labels)
    return RetrievalDataset(
        folder,
        images={image: files[image] for image in database},
        queries=protocols[MEDIUM],
        query_images={image: query_files[image] for image in labels["qimlist"]},
        protocols=protocols,
        metrics=METRICS,
    )


def read_distractors(folder: Path) -> list[str]:
    """Return the image names in the list of distractors of a data set; none if it has no list.

    Raises:
        UserError: the list cannot be read.
    """
    path = folder / DISTRACTORS_LIST
    return [line for line in read_text(path).splitlines() if line] if path.exists() else []


def _labels_files(folder: Path) -> dict[str, Path]:
    """Return set name to label file in the folder; the published file has priority over its JSON copy."""
    candidates = {
        name: [folder / file_name, (folder / file_name).with_suffix(".json")]
        for name, file_name in REVISITED_FILES.items()
    }
    existing = {name: [path for path in paths if path.is_file()] for name, paths in candidates.items()}
    return {name: paths[0] for name, paths in existing.items() if paths}


def _labels_file(folder: Path) -> tuple[str, Path]:
    """Return the name of the set in the folder and its label file."""
    files = _labels_files(folder)
    if len(files) > 1:
        names = " and ".join(path.name for path in files.values())
        raise UserError(f"{folder} has the labels of two sets, {names}: move one of them away")
    if not files:
        names = " nor ".join(REVISITED_FILES.values())
        raise UserError(
            f"{folder} has neither {names}, nor their .json copies: run Prepare_Datasets.py "
            + " or ".join(REVISITED_FILES)
        )
    return next(iter(files.items()))


def _check_unique(labels_file: Path, images: Sequence[str]) -> None:
    repeated = [image for image, count in Counter(images).items() if count > 1]
    if repeated:
        raise UserError(
            f"{labels_file} lists {len(repeated)} images twice ({first_names(repeated)}): download it again"
        )


def _protocols(labels: Labels) -> dict[str, list[Query]]:
    """Return the queries with the labels of each protocol; junk images are ignored in its scores."""
    queries: dict[str, list[Query]] = {protocol: [] for protocol in PROTOCOLS}
    names = _query_names(labels["qimlist"])
    for name, image, labelled in zip(names, labels["qimlist"], labels["gnd"], strict=True):
        easy, hard, junk = (
            frozenset(labels["imlist"][index] for index in indices)
            for indices in (labelled["easy"], labelled["hard"], labelled["junk"])
        )
        x1, y1, x2, y2 = labelled["bbx"]
        medium = Query(name, image, (x1, y1, x2, y2), good=easy, ok=hard, junk=junk)
        queries[EASY].append(replace(medium, ok=frozenset(), junk=junk | hard))
        queries[MEDIUM].append(medium)
        queries[HARD].append(replace(medium, good=frozenset(), junk=junk | easy))
    return queries


def _query_names(images: Sequence[str]) -> list[str]:
    """Return a unique name per query: the name of its image, with a number if the image occurs again."""
    names: dict[str, None] = {}
    for image in images:
        name, number = image, 2
        while name in names or (name != image and name in images):
            name, number = f"{image}_{number}", number + 1
        names[name] = None
    return list(names)
