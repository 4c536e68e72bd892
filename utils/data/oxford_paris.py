"""Data sets in the layout of Oxford5k and Paris6k: images in jpg/, queries and labels as text in lab/."""

import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER, LABELS_FOLDER, QUERY_SUFFIX
from utils.files.paths import user_path
from utils.files.reading import parse_number, read_text
from utils.images.listing import FolderContents, images_in
from utils.images.loading import Box, InputImage, check_box
from utils.text import ESCAPED_CATEGORIES, first_names

log = logging.getLogger(__name__)

QUERY_PREFIX = "oxc1_"
"""Stands before the image names in Oxford5k's query files, and nowhere else."""

CORRUPT_PARIS_IMAGES = frozenset(
    f"paris_{name}"
    for name in (
        "louvre_000136",
        "louvre_000146",
        "moulinrouge_000422",
        "museedorsay_001059",
        "notredame_000188",
        "pantheon_000284",
        "pantheon_000960",
        "pantheon_000974",
        "pompidou_000195",
        "pompidou_000196",
        "pompidou_000201",
        "pompidou_000467",
        "pompidou_000640",
        "sacrecoeur_000299",
        "sacrecoeur_000330",
        "sacrecoeur_000353",
        "triomphe_000662",
        "triomphe_000833",
        "triomphe_000863",
        "triomphe_000867",
    )
)
"""Published broken, and left out of every evaluation on Paris6k."""


@dataclass(frozen=True)
class Query:
    """A query: the part of an image inside a box, and the labels of the database's images for it."""

    name: str
    image: str
    box: Box
    good: frozenset[str]
    ok: frozenset[str]
    junk: frozenset[str]


@dataclass(frozen=True)
class RetrievalDataset:
    """A database of images, in the order of their file names, and the queries to it, in that of theirs.

    The revisited sets have their labels' order for both, and several protocols.
    """

    folder: Path
    images: dict[str, Path]
    """Image name, the file's name without its suffix, to file."""
    queries: list[Query]
    query_images: dict[str, Path]
    """Name to file of each query's image, which may be in the database or not."""
    protocols: dict[str, list[Query]] = field(default_factory=dict)
    """By the name of a protocol the queries, as above, with its labels; none where there is only one."""

    def query_inputs(self) -> list[InputImage]:
        """Return the image and the box of each query."""
        images = self.query_images
        return [InputImage(images[query.image], query.box, query.name) for query in self.queries]

    def database_inputs(self) -> list[InputImage]:
        """Return the images of the database."""
        return [InputImage(path) for path in self.images.values()]


def find_dataset(dataset: str, datasets_dir: Path) -> Path:
    """The folder of a data set given by its name in the data sets' folder or by its own path.

    Raises:
        UserError: there is no such folder, or the name is empty.
    """
    by_path = user_path(dataset, "the data set's name")
    for folder in (datasets_dir / dataset, by_path):
        if os.path.isdir(folder):  # noqa: PTH112  pathlib's raises on a name too long to be one
            return folder
    raise UserError(
        f"no data set at {datasets_dir / dataset}: it needs folders {IMAGES_FOLDER}/ and {LABELS_FOLDER}/ "
        "(Prepare_Datasets.py gets them, see datasets/README.md); "
        "--dataset Mini --backbone efficientnet_lite0 needs no download"
    )


def read_dataset(folder: Path) -> RetrievalDataset:
    """Reads a data set's file names, queries and labels; no image is opened.

    Files in jpg/ that are no images are ignored with a note; labels that name unknown images are counted in
    a note and kept, since recall is over all listed positives.

    Raises:
        UserError: a folder is missing or empty, a query file is malformed, or its image is not there.
    """
    images = read_images(folder)
    queries = _read_queries(_subfolder(folder, LABELS_FOLDER), images)
    unknown = {name for query in queries for name in query.good | query.ok | query.junk} - images.keys()
    if unknown:
        log.warning(
            "note: the labels name %d images that are not in %s (%s): as positives they count as never found",
            len(unknown),
            folder / IMAGES_FOLDER,
            first_names(unknown),
        )
    return RetrievalDataset(folder, images, queries, {query.image: images[query.image] for query in queries})


def read_images(folder: Path) -> dict[str, Path]:
    """Find a data set's images, name to file, in the order of their files' names.

    Images lie right in jpg/: a folder in it is left out with a note, as are files that are no images and
    images that were published corrupt. Hidden files are passed over.

    Raises:
        UserError: there are none, two have one name, or a name is none that a label can hold.
    """
    folder = _subfolder(folder, IMAGES_FOLDER)
    contents = images_in(folder)
    images: dict[str, Path] = {}
    left_out = []
    for path in contents.images:
        if any(unicodedata.category(character) in ESCAPED_CATEGORIES for character in path.name):
            raise UserError(f"{path.name!a} in {folder} has a name that no label can hold: rename it")
        elif path.stem in CORRUPT_PARIS_IMAGES:
            left_out.append(path.stem)
        elif path.stem in images:
            raise UserError(f"{images[path.stem]} and {path.name} are one image name, {path.stem}: keep one")
        else:
            images[path.stem] = path
    _report_left_out("files that are no images", contents.others)
    _report_left_out("folders, since images lie right in jpg/", contents.folders)
    if left_out:
        log.warning(
            "note: left out %d images that were published corrupt (%s)", len(left_out), first_names(left_out)
        )
    if not images:
        raise UserError(_why_empty(folder, contents))
    return images


def check_queries(dataset: RetrievalDataset, longer_side: int) -> None:
    """Checks every query's box against its image, which takes no decoding.

    Raises:
        UserError: a box has no pixel inside its image, or the image cannot be read; the query is named.
    """
    for image in dataset.query_inputs():
        check_box(image, longer_side)


def _report_left_out(what: str, paths: Sequence[Path]) -> None:
    if paths:
        names = first_names([path.name for path in paths])
        log.warning("note: ignored %d %s, in %s (%s)", len(paths), what, paths[0].parent, names)


def _why_empty(folder: Path, contents: FolderContents) -> str:
    if contents.folders:
        names = first_names([f"{path.name}/" for path in contents.folders])
        return f"no images right in {folder}: move those in its folders ({names}) there"
    if contents.others:
        names = first_names([path.name for path in contents.others])
        return f"no images in {folder}: its files ({names}) have no image's suffix, nor begin as images do"
    return f"no images in {folder}"


def _subfolder(folder: Path, name: str) -> Path:
    subfolder = folder / name
    if not subfolder.is_dir():
        raise UserError(f"{folder} has no folder {name}/ (see datasets/README.md for the layout)")
    return subfolder


def _read_queries(folder: Path, images: dict[str, Path]) -> list[Query]:
    files = sorted(folder.glob(f"*{QUERY_SUFFIX}"), key=lambda path: path.name)
    if not files:
        raise UserError(f"no queries in {folder}: they are files <query>{QUERY_SUFFIX}")
    return [_read_query(path, images) for path in files]


def _read_query(path: Path, images: dict[str, Path]) -> Query:
    name = path.name.removesuffix(QUERY_SUFFIX)
    fields = read_text(path).strip().rsplit(maxsplit=4)
    try:
        image, *sides = fields
        x1, y1, x2, y2 = (parse_number(side) for side in sides)
    except ValueError as error:
        raise UserError(f"{path} is malformed: expected '<image name> x1 y1 x2 y2' ({error})") from error
    image = image.removeprefix(QUERY_PREFIX)
    if image not in images:
        raise UserError(f"query {name}: its image {image} is not among the images of the data set")
    good, ok, junk = (_read_names(path.with_name(f"{name}_{label}.txt")) for label in ("good", "ok", "junk"))
    return Query(name, image, (x1, y1, x2, y2), good, ok, junk)


def _read_names(path: Path) -> frozenset[str]:
    """The image names in a file, one a line."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return frozenset(line for line in lines if line)
