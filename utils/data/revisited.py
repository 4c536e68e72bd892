"""The revisited Oxford and Paris sets: their images, their queries and the labels of three protocols.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utils.data.oxford_paris import (
    CORRUPT_PARIS_IMAGES,
    Query,
    RetrievalDataset,
    read_images,
)
from utils.data.revisited_labels import Labels, read_labels, read_pickled_labels
from utils.errors import UserError
from utils.file_names import DISTRACTORS_LIST, IMAGES_FOLDER
from utils.files.reading import read_text
from utils.prepare.recipes import REVISITED_LABELS
from utils.text import first_names

log = logging.getLogger(__name__)

EASY, MEDIUM, HARD = PROTOCOLS = ("easy", "medium", "hard")


def has_revisited_labels(folder: Path) -> bool:
    """Whether a folder, of any name, holds a revisited set's labels, as published or as JSON."""
    return bool(_labels_files(folder))


def read_revisited_dataset(folder: Path) -> RetrievalDataset:
    """Reads a revisited set's file names, queries and labels; no image is opened.

    The labels say what the database is: the images of `imlist`, in its order. Images of queries are in it
    only if they are there as well. What distractors.txt lists, as Prepare_Datasets.py leaves it, comes
    behind, in the order of the files' names; any other image in jpg/ is left out with a note.

    A query is named by its image, the second of one image by `<image>_2`. As such it has the labels of the
    Medium protocol: good means easy, ok means hard.

    Raises:
        UserError: there are no labels, they cannot be read or are those of two sets, or images are missing.
    """
    name, labels_file = _labels_file(folder)
    labels = (read_pickled_labels if labels_file.suffix == ".pkl" else read_labels)(labels_file)
    _check_unique(labels_file, labels["imlist"])
    found = read_images(folder)
    named = dict.fromkeys([*labels["imlist"], *labels["qimlist"]])
    distractors = set(read_distractors(folder)) - named.keys() - CORRUPT_PARIS_IMAGES
    wanted = named | dict.fromkeys(sorted(distractors))
    missing = [image for image in wanted if image not in found]
    if missing:
        command = f"Prepare_Datasets.py {name}{' --distractors <their folder>' if distractors else ''}"
        raise UserError(
            f"{folder / IMAGES_FOLDER} lacks {len(missing)} of the {len(wanted)} images that belong in it, "
            f"the first of them {missing[0]}: move {folder} away and run {command}"
        )
    strays = found.keys() - wanted.keys()
    if strays:
        log.warning(
            "note: left out %d images of %s that %s does not name (%s): distractors count if %s lists them",
            len(strays),
            folder / IMAGES_FOLDER,
            labels_file.name,
            first_names(strays),
            folder / DISTRACTORS_LIST,
        )
    database = [*labels["imlist"], *(image for image in found if image in distractors)]
    protocols = _protocols(labels)
    return RetrievalDataset(
        folder,
        images={image: found[image] for image in database},
        queries=protocols[MEDIUM],
        query_images={image: found[image] for image in labels["qimlist"]},
        protocols=protocols,
    )


def read_distractors(folder: Path) -> list[str]:
    """The names of the images that a data set lists as distractors, none where it has no list.

    Raises:
        UserError: the list cannot be read.
    """
    path = folder / DISTRACTORS_LIST
    return [line for line in read_text(path).splitlines() if line] if path.exists() else []


def _labels_files(folder: Path) -> dict[str, Path]:
    """Each set's name to its labels in the folder; the published file rather than the JSON made of it."""
    paths = {
        name: [folder / file_name, (folder / file_name).with_suffix(".json")]
        for name, (file_name, _) in REVISITED_LABELS.items()
    }
    there = {name: [path for path in both if path.is_file()] for name, both in paths.items()}
    return {name: both[0] for name, both in there.items() if both}


def _labels_file(folder: Path) -> tuple[str, Path]:
    """The set that the folder holds and its labels."""
    there = _labels_files(folder)
    if len(there) > 1:
        names = " and ".join(path.name for path in there.values())
        raise UserError(f"{folder} has the labels of two sets, {names}: move one of them away")
    if not there:
        files = " nor ".join(file_name for file_name, _ in REVISITED_LABELS.values())
        raise UserError(
            f"{folder} has neither {files}, nor the same as .json: run Prepare_Datasets.py "
            + " or ".join(REVISITED_LABELS)
        )
    return next(iter(there.items()))


def _check_unique(labels_file: Path, images: Sequence[str]) -> None:
    twice = [image for image, count in Counter(images).items() if count > 1]
    if twice:
        raise UserError(f"{labels_file} lists {len(twice)} images twice ({first_names(twice)}): get it again")


def _protocols(labels: Labels) -> dict[str, list[Query]]:
    """What each protocol looks for, and what is to it as if it were not there."""
    queries: dict[str, list[Query]] = {protocol: [] for protocol in PROTOCOLS}
    names = _query_names(labels["qimlist"])
    for name, image, labelled in zip(names, labels["qimlist"], labels["gnd"], strict=True):
        easy, hard, junk = (
            frozenset(labels["imlist"][place] for place in places)
            for places in (labelled["easy"], labelled["hard"], labelled["junk"])
        )
        x1, y1, x2, y2 = labelled["bbx"]
        medium = Query(name, image, (x1, y1, x2, y2), good=easy, ok=hard, junk=junk)
        queries[EASY].append(replace(medium, ok=frozenset(), junk=junk | hard))
        queries[MEDIUM].append(medium)
        queries[HARD].append(replace(medium, good=frozenset(), junk=junk | easy))
    return queries


def _query_names(images: Sequence[str]) -> list[str]:
    """The images' names, those that come again with a number that makes them another name than any."""
    names: dict[str, None] = {}
    for image in images:
        name, number = image, 2
        while name in names or (name != image and name in images):
            name, number = f"{image}_{number}", number + 1
        names[name] = None
    return list(names)
