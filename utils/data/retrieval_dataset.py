"""A database of images with queries and labels, of any layout."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.images.loading import Box, InputImage, check_box
from utils.text import first_names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """A query: the part of an image inside a box, and the labels of the database images for it."""

    name: str
    image: str
    box: Box | None
    """x1, y1, x2, y2 in pixels of the image; None for the complete image."""
    good: frozenset[str]
    ok: frozenset[str]
    junk: frozenset[str]


@dataclass(frozen=True)
class RetrievalDataset:
    """A database of images and the queries to it.

    Images are in the order of their file names, queries in the order of their names. In revisited sets, both
    are in the order of the labels, and there are several protocols.
    """

    folder: Path
    images: dict[str, Path]
    """Image name, which is the file name without its suffix, to file."""
    queries: list[Query]
    query_images: dict[str, Path]
    """Image name to file of the query images, which may be in the database or not."""
    protocols: dict[str, list[Query]] = field(default_factory=dict)
    """Name of a protocol to its queries with its labels; empty if there is only one protocol."""
    metrics: tuple[str, ...] = ()
    """Metrics of the data set's published evaluation beside mAP, such as mP@10."""

    def query_inputs(self) -> list[InputImage]:
        """Return the image and the box of each query."""
        images = self.query_images
        return [InputImage(images[query.image], query.box, query.name) for query in self.queries]

    def without_boxes(self) -> "RetrievalDataset":
        """Return the same data set, in which each query is its complete image."""
        protocols = {name: _without_boxes(queries) for name, queries in self.protocols.items()}
        return replace(self, queries=_without_boxes(self.queries), protocols=protocols)

    def database_inputs(self) -> list[InputImage]:
        """Return the images of the database."""
        return [InputImage(path) for path in self.images.values()]


def check_queries(dataset: RetrievalDataset, longer_side: int) -> None:
    """Check the box of each query against its image without decoding the image.

    Raises:
        UserError: a box has no pixel inside its image, or the image cannot be read.
    """
    for image in dataset.query_inputs():
        check_box(image, longer_side)


def note_missing_images(queries: Sequence[Query], images: Collection[str], folder: Path) -> None:
    """Log the number of images that the labels name but the database lacks.

    Args:
        queries: queries with labels.
        images: names of the images of the database.
        folder: the folder of these images, for the message.
    """
    labelled = {name for query in queries for name in query.good | query.ok | query.junk}
    if missing := labelled.difference(images):
        log.warning(
            "note: the labels name %d images that are not in %s (%s): positives count as not retrieved",
            len(missing),
            folder,
            first_names(missing),
        )


def _without_boxes(queries: Sequence[Query]) -> list[Query]:
    return [replace(query, box=None) for query in queries]
