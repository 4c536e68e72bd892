"""Verification of a data set: its counts, labels, images and query boxes."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from utils.data.imagenet import FOLDER as IMAGENET
from utils.data.imagenet import is_imagenet, read_training_images, read_wnids
from utils.data.imagenet_validation import read_validation_images
from utils.data.open_dataset import labels_kind, read_folder
from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES
from utils.data.published_sets import EXPECTED
from utils.data.retrieval_dataset import RetrievalDataset
from utils.errors import UserError
from utils.images.listing import images_below, report_left_out
from utils.images.loading import UnreadableImageError, image_size, read_image
from utils.prepare.data_set import r1m_folders
from utils.prepare.recipes import R1M
from utils.program.signals import leave_signals_to_parent, stopping_blocked
from utils.text import first_names

IMAGES_PER_TASK = 16
"""Images that a process gets at a time."""

BOX_TOLERANCE = 1.0
"""Maximum number of pixels that a box can exceed its image by, because of rounding."""


def verify(folder: Path) -> None:
    """Check a data set and print its counts and its problems, one per line.

    Raises:
        UserError: there are problems, or the data set cannot be read.
    """
    kind = labels_kind(folder)
    if kind is None:
        contents = images_below(folder)
        report_left_out(contents, folder)
        images = [path for path in contents.images if path.stem not in CORRUPT_PARIS_IMAGES]
        print(f"{folder}: {len(images)} images")
        problems = [] if images else [f"no images in {folder} or the folders in it"]
        problems += [*find_class_problems(folder), *find_missing_archives(folder)]
    else:
        data = read_folder(folder)
        images = list(dict.fromkeys([*data.images.values(), *data.query_images.values()]))
        print(f"{folder}: {len(data.images)} images, {len(data.queries)} queries")
        problems = [] if kind == "revisited" else [*find_wrong_counts(data), *find_missing_images(data)]
        problems += find_boxes_outside(data)
    problems += find_unreadable_images(images)
    for problem in problems:
        print(problem)
    if problems:
        raise UserError(f"{folder} has {len(problems)} problems, listed on standard output")
    print(f"{folder} is complete")


def find_wrong_counts(data: RetrievalDataset) -> Iterator[str]:
    """Yield a problem for each number of images or queries that differs from the published number."""
    counts = (len(data.images), len(data.queries))
    expected_counts = EXPECTED.get(data.folder.name, counts)
    for kind, count, expected in zip(("images", "queries"), counts, expected_counts, strict=True):
        if count != expected:
            yield f"{count} {kind} instead of {expected}"


def find_missing_images(data: RetrievalDataset) -> Iterator[str]:
    """Yield a problem for each image that is in the labels but missing."""
    labelled = {name for query in data.queries for name in query.good | query.ok | query.junk}
    for name in sorted(labelled - data.images.keys()):
        yield f"the labels name {name}, which is not an image of the database"


def find_boxes_outside(data: RetrievalDataset) -> Iterator[str]:
    """Yield a problem for each query with a box that is empty or exceeds its image."""
    for query, image in zip(data.queries, data.query_inputs(), strict=True):
        if query.box is None:
            continue
        try:
            height, width = image_size(image.path)
        except UnreadableImageError:
            continue  # find_unreadable_images lists it
        x1, y1, x2, y2 = query.box
        right, bottom = width + BOX_TOLERANCE, height + BOX_TOLERANCE
        is_inside = min(x1, y1) >= -BOX_TOLERANCE and x2 <= right and y2 <= bottom
        if not is_inside or x1 >= x2 or y1 >= y2:
            box = f"{x1:g} {y1:g} {x2:g} {y2:g}"
            yield f"query {query.name}: its box {box} is empty or exceeds its image, {width} x {height}"


def find_class_problems(folder: Path) -> Iterator[str]:
    """Yield the problems of the classes of ImageNet; none for another data set."""
    if folder.name != IMAGENET and not is_imagenet(folder):
        return
    classes = len(read_wnids())
    for read in (
        partial(read_training_images, folder, classes),
        partial(read_validation_images, folder, classes, count=1, seed=0),
    ):
        try:
            read()
        except UserError as error:
            yield str(error)


def find_missing_archives(folder: Path) -> Iterator[str]:
    """Yield a problem if archives of R1M are not unpacked; none for another data set."""
    if folder.name == R1M:
        missing = [path.name for path in r1m_folders(folder) if not path.is_dir()]
        if missing:
            yield f"{len(missing)} archives of {R1M} are not unpacked: {first_names(missing)}"


def find_unreadable_images(images: Sequence[Path]) -> list[str]:
    """Decode all images, in parallel, and return a problem for each unreadable image."""
    processes = min(os.cpu_count() or 1, max(len(images), 1))
    with ProcessPoolExecutor(processes, initializer=leave_signals_to_parent) as pool:
        with stopping_blocked():
            results = pool.map(_decoding_error, images, chunksize=IMAGES_PER_TASK)
        problems = list(tqdm(results, "images", len(images), unit="image", disable=None))
    return [problem for problem in problems if problem]


def _decoding_error(path: Path) -> str | None:
    try:
        read_image(path)
    except UnreadableImageError as error:
        return str(error)
    return None
