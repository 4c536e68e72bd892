"""Writing of a data set in the layout of Oxford5k from a user's images."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from utils.data.open_dataset import KINDS_BY_NAME
from utils.data.retrieval_dataset import Query
from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER, LABELS_FOLDER, LABELS_RECORD, MINI, QUERY_SUFFIX
from utils.files.folders import replace_folder
from utils.files.outputs import check_replaceable
from utils.files.writing import check_writable, replace_file
from utils.labelling.collection import Collection, read_collection
from utils.labelling.object_folders import queries_of_objects
from utils.labelling.options import LabelsOptions
from utils.labelling.table import queries_of_table
from utils.options.saved_options import to_json
from utils.prepare.layout import link_files
from utils.prepare.recipes import RECIPES, WITH_DISTRACTORS
from utils.scoring.compute_ap import write_label_files
from utils.text import first_names

log = logging.getLogger(__name__)

PUBLISHED = {*RECIPES, *KINDS_BY_NAME, *WITH_DISTRACTORS.values(), MINI}
"""Names of published data sets."""

LONGEST_NAME = 255
"""Largest number of bytes of a file name on usual file systems."""

RECORD_BEGIN = b'{\n  "settings": {\n    "folder"'
"""First bytes of labels.json, which identify data sets that this program wrote."""


def write_labels(options: LabelsOptions) -> Path:
    """Write a data set from one folder per object, or from a folder of images and a table of labels.

    The images are hard links, or copies on another file system. A data set that an earlier call wrote is
    replaced.

    Returns:
        The folder of the data set.

    Raises:
        UserError: an option, an image or a line of the table is invalid, or a file cannot be written.
    """
    target = find_target(options)
    collection = read_collection(options.folder)
    if options.csv is not None:
        queries = queries_of_table(options.csv, options.folder, collection)
    else:
        queries = queries_of_objects(options.folder, collection, options.queries, options.seed)
    with replace_folder(target) as draft:
        write_dataset(draft, collection, queries)
        record = {"settings": to_json(options), "images": len(collection), "queries": len(queries)}
        with replace_file(draft / LABELS_RECORD) as file:
            file.write(json.dumps(record, indent=2).encode() + b"\n")
    log.info("%s has %d images and %d queries", target, len(collection), len(queries))
    return target


def find_target(options: LabelsOptions) -> Path:
    """Return the folder of the data set to write.

    Raises:
        UserError: the folder of the images is missing or is a data set, or the folder to write has an
            invalid name, lies among the images, is not writable, or was not written by this program.
    """
    folder = options.folder
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}: name the folder of the images")
    if (folder / LABELS_FOLDER).is_dir():
        raise UserError(f"{folder} has a folder {LABELS_FOLDER}/: it is a data set already")
    if options.csv is not None and options.queries is not None:
        raise UserError("--queries has no effect with --csv, which lists the queries: leave one out")
    name = folder.resolve().name if options.name is None else options.name
    if not name or name != Path(name).name or name.startswith("."):
        raise UserError(f"{name!r} cannot be the name of a data set: give another --name")
    if name in PUBLISHED:
        raise UserError(f"{name} is the name of a published data set: give another --name")
    target = options.datasets_dir / name
    if os.path.lexists(target):
        record = target / LABELS_RECORD
        if not record.is_file():
            raise UserError(f"{target} was not written by the command labels: give another --name")
        check_replaceable(record, RECORD_BEGIN)
        written = (IMAGES_FOLDER, LABELS_FOLDER, LABELS_RECORD)
        if others := {path.name for path in target.iterdir() if not path.name.startswith(".")} - {*written}:
            raise UserError(
                f"{target} would be replaced, with files that labels did not write ({first_names(others)}): "
                "move them away, or give another --name"
            )
    if target.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{target} is inside {folder}, whose images it would hold: give another --datasets-dir"
        )
    check_writable(options.datasets_dir)
    return target


def write_dataset(folder: Path, collection: Collection, queries: Sequence[Query]) -> None:
    """Write the images and the labels of a data set to a folder.

    Raises:
        UserError: a name is too long for a file, or a file cannot be written.
    """
    check_lengths(collection, queries)
    images, labels = folder / IMAGES_FOLDER, folder / LABELS_FOLDER
    images.mkdir()
    labels.mkdir()
    link_files({image.name + image.path.suffix: image.path for image in collection.values()}, images)
    for query in queries:
        write_label_files(labels, query.name, query.good, query.ok, query.junk)
        line = " ".join([query.image, *(f"{side:.10g}" for side in query.box or ())])
        with replace_file(labels / f"{query.name}{QUERY_SUFFIX}") as file:
            file.write(f"{line}\n".encode())


def check_lengths(collection: Collection, queries: Sequence[Query]) -> None:
    """Check the lengths of the names of the files of a data set.

    Raises:
        UserError: a name is too long.
    """
    names = {str(image.path): image.name + image.path.suffix for image in collection.values()}
    names |= {f"query {query.name}": f"{query.name}{QUERY_SUFFIX}" for query in queries}
    for source, name in names.items():
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise UserError(
                f"{source}: the name of its file in the data set, with those of its folders, has more than "
                f"{LONGEST_NAME} bytes: give it or its folders shorter names"
            )
