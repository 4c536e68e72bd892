"""Checks a data set as a whole: its counts, its labels, every image, every query box."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from utils.data.imagenet import FOLDER as IMAGENET
from utils.data.imagenet import read_training_images, read_validation_images, read_wnids
from utils.data.open_dataset import labels_kind, read_folder
from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES, RetrievalDataset
from utils.data.published import EXPECTED
from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER
from utils.images.listing import images_below, report_thumbnails
from utils.images.loading import UnreadableImageError, image_size, read_image
from utils.program.signals import ignore_interrupts, interrupts_blocked

CHUNK = 16
"""Images that a process gets at a time."""

SLACK = 1.0
"""Pixels that a box may stick out of its image, as rounding makes it."""


def verify(folder: Path) -> None:
    """Checks a data set, prints what there is and then each problem, one a line.

    Raises:
        UserError: there are problems, or one that leaves nothing to check.
    """
    kind = labels_kind(folder)
    if kind is None:
        contents = images_below(folder)
        report_thumbnails(contents, folder)
        images = [path for path in contents.images if path.stem not in CORRUPT_PARIS_IMAGES]
        print(f"{folder}: {len(images)} images")
        problems = [] if images else [f"no images in {folder} or the folders in it"]
        problems += wrong_classes(folder)
    else:
        data = read_folder(folder)
        images = list(dict.fromkeys([*data.images.values(), *data.query_images.values()]))
        print(f"{folder}: {len(data.images)} images, {len(data.queries)} queries")
        problems = [] if kind == "revisited" else [*wrong_counts(data), *missing_images(data)]
        problems += boxes_outside(data)
    problems += undecodable(images)
    for problem in problems:
        print(problem)
    if problems:
        raise UserError(f"{folder} has {len(problems)} problems, listed on standard output")
    print(f"{folder} is whole")


def wrong_counts(data: RetrievalDataset) -> Iterator[str]:
    """Says where a known data set has fewer images or queries, or more, than published."""
    found = (len(data.images), len(data.queries))
    expected = EXPECTED.get(data.folder.name, found)
    for what, there, should in zip(("images", "queries"), found, expected, strict=True):
        if there != should:
            yield f"{there} {what} instead of {should}"


def missing_images(data: RetrievalDataset) -> Iterator[str]:
    """Names the images that labels name and that are not there."""
    named = {name for query in data.queries for name in query.good | query.ok | query.junk}
    for name in sorted(named - data.images.keys()):
        yield f"the labels name {name}, which is not in {data.folder / IMAGES_FOLDER}"


def boxes_outside(data: RetrievalDataset) -> Iterator[str]:
    """Names the queries whose box is empty or sticks out of its image."""
    for query, image in zip(data.queries, data.query_inputs(), strict=True):
        try:
            height, width = image_size(image.path)
        except UnreadableImageError:
            continue  # it is listed as such
        x1, y1, x2, y2 = query.box
        inside = min(x1, y1) >= -SLACK and x2 <= width + SLACK and y2 <= height + SLACK
        if not inside or x1 >= x2 or y1 >= y2:
            box = f"{x1:g} {y1:g} {x2:g} {y2:g}"
            yield f"query {query.name}: its box {box} leaves its image, {width} x {height}"


def wrong_classes(folder: Path) -> Iterator[str]:
    """Says what is wrong with the classes of ImageNet's images."""
    if folder.name != IMAGENET:
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


def undecodable(images: Sequence[Path]) -> list[str]:
    """Decodes every image, in parallel, and names those that cannot be."""
    processes = min(os.cpu_count() or 1, max(len(images), 1))
    with ProcessPoolExecutor(processes, initializer=ignore_interrupts) as pool:
        with interrupts_blocked():
            found = pool.map(_why_undecodable, images, chunksize=CHUNK)
        reasons = list(tqdm(found, "images", len(images), unit="image", disable=None))
    return [reason for reason in reasons if reason]


def _why_undecodable(path: Path) -> str | None:
    try:
        read_image(path)
    except UnreadableImageError as error:
        return str(error)
    return None
