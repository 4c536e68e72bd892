"""Queries and labels from a table in CSV with one labelled image per line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from utils.data.retrieval_dataset import Query
from utils.errors import BadFileError, UserError
from utils.files.reading import parse_number
from utils.files.tables import read_table
from utils.images.loading import Box, InputImage, check_box
from utils.labelling.collection import Collection, CollectionImage
from utils.text import shorten

COLUMNS = ("query", "image", "label")
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
GOOD, OK, JUNK = "good", "ok", "junk"
LABELS = (GOOD, OK, JUNK, "absent")
"""Labels as for Oxford5k; `absent` is for images that do not show the object, which need no line."""


class Line(NamedTuple):
    """A line of the table."""

    query: CollectionImage
    box: Box | None
    image: CollectionImage
    label: str


def queries_of_table(file: Path, folder: Path, collection: Collection) -> list[Query]:
    """Return the queries and labels of a table.

    The lines of one query image and one box are a query. The n-th query of an image is named `<image>_<n>`.
    The image itself is junk unless a line labels it.

    Args:
        file: table with a line of column names.
        folder: the folder of the images, for errors.
        collection: images below the folder, which the table names by their relative paths.

    Raises:
        UserError: the table is unreadable, or a line is not valid. The message names the line.
    """
    by_path = {**{normalize("NFC", path): image for path, image in collection.items()}, **collection}
    labels: dict[tuple[CollectionImage, Box | None], dict[str, str]] = {}
    boxed: dict[str, bool] = {}
    for number, cells in read_table(file, COLUMNS, BOX_COLUMNS):
        with _naming_line(file, number):
            line = _parse_line(cells, folder, by_path)
            if boxed.setdefault(line.query.name, line.box is not None) != (line.box is not None):
                raise BadFileError("some lines of this query have a box, others have none")
            of_query = labels.setdefault((line.query, line.box), {})
            earlier = of_query.setdefault(line.image.name, line.label)
            if earlier != line.label:
                raise BadFileError(f"{cells['image']} has the label {earlier} on an earlier line")
    if not labels:
        raise BadFileError(f"{file} has no labels")
    counts: dict[str, int] = {}
    queries = []
    for (image, box), label_of in labels.items():
        counts[image.name] = counts.get(image.name, 0) + 1
        label_of.setdefault(image.name, JUNK)
        good, ok, junk = (
            frozenset(name for name, label in label_of.items() if label == wanted)
            for wanted in (GOOD, OK, JUNK)
        )
        name = f"{image.name}_{counts[image.name]}"
        queries.append(Query(name, image.name, box or image.box, good, ok, junk))
    return queries


def _parse_line(cells: Mapping[str, str], folder: Path, collection: Collection) -> Line:
    """Return the labelled image of a line.

    Raises:
        UserError: an image is missing, the label is unknown, or the box is not valid.
    """
    query, image = (_find(cells[column], folder, collection) for column in ("query", "image"))
    if cells["label"] not in LABELS:
        raise BadFileError(f"the label {shorten(cells['label'])} is not one of {', '.join(LABELS)}")
    sides = [cells.get(column, "") for column in BOX_COLUMNS]
    if not any(sides):
        return Line(query, None, image, cells["label"])
    try:
        x1, y1, x2, y2 = (parse_number(side) for side in sides)
    except ValueError as error:
        raise BadFileError(f"the box is not x1,y1,x2,y2 in pixels ({error})") from error
    check_box(InputImage(query.path, (x1, y1, x2, y2)), round(max(query.box)))
    return Line(query, (x1, y1, x2, y2), image, cells["label"])


def _find(path: str, folder: Path, collection: Collection) -> CollectionImage:
    """Return the image of a path relative to the folder, with slashes or, as on Windows, backslashes.

    Letters with accents may be composed or, as in names written by macOS, decomposed.

    Raises:
        UserError: there is no such image.
    """
    forms = (path, path.replace("\\", "/"), normalize("NFC", path.replace("\\", "/")))
    image = next((collection[form] for form in forms if form in collection), None)
    if image is None:
        raise BadFileError(f"no readable image {shorten(path)} in {folder}")
    return image


@contextmanager
def _naming_line(file: Path, number: int) -> Iterator[None]:
    """Prefix the user errors of a block with the file and the number of a line.

    Raises:
        UserError: the block raised a UserError.
    """
    try:
        yield
    except UserError as error:
        raise BadFileError(f"{file}, line {number}: {error}") from error
