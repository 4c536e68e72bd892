"""Queries and labels from one folder of images per object."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.data.retrieval_dataset import Query
from utils.errors import UserError
from utils.labelling.collection import Collection, CollectionImage
from utils.text import first_names

log = logging.getLogger(__name__)


def queries_of_objects(folder: Path, collection: Collection, count: int | None, seed: int) -> list[Query]:
    """Return queries for each object of a folder.

    An object is a folder directly in `folder`, with the images at any depth below it. Images directly in
    `folder` belong to no object. Each query is a complete image. The other images of its object are good; the
    image itself is junk. The n-th query of an object is named `<object>_<n>`. An object with a single image
    has no query.

    Args:
        folder: the folder, for errors.
        collection: images below the folder.
        count: largest number of queries per object, drawn at random; None for all images.
        seed: random seed of the draw.

    Raises:
        UserError: no object has two images.
    """
    objects: dict[str, list[CollectionImage]] = {}
    without_object = 0
    for relative, image in collection.items():
        name, slash, _ = relative.partition("/")
        if slash:
            objects.setdefault(name, []).append(image)
        else:
            without_object += 1
    single = [name for name, images in objects.items() if len(images) == 1]
    if len(single) == len(objects):
        raise UserError(
            f"{folder} has no folder with two images: put the images of each object into a folder of it, "
            "or name a table by --csv"
        )
    if without_object:
        log.info("%d images directly in %s are wrong for all queries", without_object, folder)
    if single:
        log.warning(
            "note: %d objects have a single image and get no query (%s)", len(single), first_names(single)
        )
    return [
        query
        for index, (name, images) in enumerate(sorted(objects.items()))
        if len(images) > 1
        for query in _queries(name, images, _draw(len(images), count, [seed, index]))
    ]


def _draw(images: int, count: int | None, seed: list[int]) -> list[int]:
    """Return the indices of the images of an object to query with, rising."""
    drawn: list[int] = np.random.default_rng(seed).permutation(images)[:count].tolist()
    return sorted(drawn)


def _queries(name: str, images: list[CollectionImage], indices: list[int]) -> Iterator[Query]:
    """Yield the queries of an object."""
    for number, index in enumerate(indices, start=1):
        image = images[index]
        good = frozenset(other.name for other in images) - {image.name}
        yield Query(f"{name}_{number}", image.name, image.box, good, frozenset(), frozenset([image.name]))
