"""Data sets in the layout of Oxford5k and Paris6k: images in jpg/, queries and labels as text in lab/."""

import logging
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from utils.data.retrieval_dataset import Query, RetrievalDataset, note_missing_images
from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER, LABELS_FOLDER, QUERIES_FOLDER, QUERY_SUFFIX
from utils.files.paths import user_path
from utils.files.reading import parse_number, read_text
from utils.images.listing import FolderContents, images_in, report_left_out
from utils.images.loading import Box
from utils.text import first_names, has_control_characters

log = logging.getLogger(__name__)

QUERY_PREFIX = "oxc1_"
"""Prefix of the image names in the query files of Oxford5k, and in no other file."""

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
"""Images of Paris6k that were published corrupt. All evaluations on Paris6k leave them out."""


def find_dataset(dataset: str, datasets_dir: Path) -> Path:
    """Return the folder of a data set.

    Args:
        dataset: the name of the data set in `datasets_dir`, or the path of its folder. It is a path if it
            begins with `.` or `..`.
        datasets_dir: the folder of the data sets.

    Raises:
        UserError: the folder is missing, or the name is empty.
    """
    by_path = user_path(dataset, "the data set's name")
    is_path = f"{dataset}/".startswith(("./", "../"))
    for folder in (by_path,) if is_path else (datasets_dir / dataset, by_path):
        if os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises OSError if the name is too long
            return folder
    raise UserError(
        f"no data set at {datasets_dir / dataset}: it needs folders {IMAGES_FOLDER}/ and {LABELS_FOLDER}/ "
        "(Prepare_Datasets.py downloads them, see datasets/README.md); "
        "--dataset Mini --backbone efficientnet_lite0 needs no download"
    )


def read_dataset(folder: Path) -> RetrievalDataset:
    """Read the file names, queries and labels of a data set without opening an image.

    Query images are in queries/, if it exists, or in jpg/. A query file without a box stands for the complete
    image. Files in jpg/ that are not images are left out with a note. Labels of missing images are counted in
    a note and kept, since recall is over all listed positives.

    Raises:
        UserError: a folder is missing or empty, a query file is not valid, or a query image is missing.
    """
    images = read_images(folder)
    query_images = read_query_images(folder, images)
    queries = _read_queries(_subfolder(folder, LABELS_FOLDER), query_images)
    note_missing_images(queries, images, folder / IMAGES_FOLDER)
    used = {query.image: query_images[query.image] for query in queries}
    return RetrievalDataset(folder, images, queries, used)


def read_query_images(folder: Path, images: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files that can be query images, by image name: those in queries/, if it exists, and in jpg/.

    Args:
        folder: the folder of the data set.
        images: the images of the database. An image in queries/ has priority over one of the same name here.

    Raises:
        UserError: as for `read_images`.
    """
    is_separate = (folder / QUERIES_FOLDER).is_dir()
    return {**images, **read_images(folder, QUERIES_FOLDER)} if is_separate else dict(images)


def read_images(folder: Path, name: str = IMAGES_FOLDER) -> dict[str, Path]:
    """Find the images of a data set, which are the image files directly in jpg/.

    Folders, files that are not images, and images that were published corrupt are left out with a note.
    Hidden files are left out without one.

    Args:
        folder: the folder of the data set.
        name: the folder in it to search instead of jpg/.

    Returns:
        Image name to file, in the order of the file names.

    Raises:
        UserError: there are no images, two have the same name, or a name cannot be written in a label.
    """
    folder = _subfolder(folder, name)
    contents = images_in(folder)
    images: dict[str, Path] = {}
    left_out = []
    for path in contents.images:
        if has_control_characters(path.name):
            raise UserError(f"{path.name!a} in {folder}: a label cannot hold this name: rename the file")
        elif path.stem in CORRUPT_PARIS_IMAGES:
            left_out.append(path.stem)
        elif path.stem in images:
            raise UserError(
                f"{images[path.stem]} and {path.name} have the same image name, {path.stem}: keep one of them"
            )
        else:
            images[path.stem] = path
    report_left_out(contents, folder)
    _report_left_out("files that are not images", contents.others)
    _report_left_out(f"folders, since only images directly in {name}/ count,", contents.folders)
    if left_out:
        log.warning(
            "note: left out %d images that were published corrupt (%s)", len(left_out), first_names(left_out)
        )
    if not images:
        raise UserError(_no_images_message(folder, contents))
    return images


def _report_left_out(kind: str, paths: Sequence[Path]) -> None:
    if paths:
        names = first_names([path.name for path in paths])
        log.warning("note: left out %d %s in %s (%s)", len(paths), kind, paths[0].parent, names)


def _no_images_message(folder: Path, contents: FolderContents) -> str:
    if contents.folders:
        names = first_names([f"{path.name}/" for path in contents.folders])
        return f"no images directly in {folder}: move the images in its folders ({names}) there"
    if contents.others:
        names = first_names([path.name for path in contents.others])
        return (
            f"no images in {folder}: its files ({names}) have neither the suffix nor the header of an image"
        )
    return f"no images in {folder}"


def _subfolder(folder: Path, name: str) -> Path:
    subfolder = folder / name
    if not subfolder.is_dir():
        raise UserError(f"{folder} has no folder {name}/ (see datasets/README.md for the layout)")
    return subfolder


def _read_queries(folder: Path, images: dict[str, Path]) -> list[Query]:
    files = sorted(folder.glob(f"*{QUERY_SUFFIX}"), key=lambda path: path.name)
    if not files:
        raise UserError(f"no queries in {folder}: each query is a file <query>{QUERY_SUFFIX}")
    return [_read_query(path, images) for path in files]


def _read_query(path: Path, images: dict[str, Path]) -> Query:
    name = path.name.removesuffix(QUERY_SUFFIX)
    text = read_text(path).strip()
    box: Box | None = None
    if (image := _without_prefix(text, images)) not in images:
        try:
            image, *sides = text.rsplit(maxsplit=4)
            x1, y1, x2, y2 = (parse_number(side) for side in sides)
        except ValueError as error:
            raise UserError(f"{path} is not valid: expected '<image name> x1 y1 x2 y2' ({error})") from error
        image, box = _without_prefix(image, images), (x1, y1, x2, y2)
    if image not in images:
        raise UserError(f"query {name}: its image {image} is not in the data set")
    good, ok, junk = (_read_names(path.with_name(f"{name}_{label}.txt")) for label in ("good", "ok", "junk"))
    return Query(name, image, box, good, ok, junk)


def _without_prefix(name: str, images: Container[str]) -> str:
    """Return the image name in a query file without the prefix of Oxford5k, unless an image has it."""
    return name if name in images else name.removeprefix(QUERY_PREFIX)


def _read_names(path: Path) -> frozenset[str]:
    """Read image names, one per line."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return frozenset(line for line in lines if line)
