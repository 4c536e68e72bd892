"""Search photos: describe a folder of images once, then find the images that show the same thing as a query.

Results go to standard output, a line per image: rank, similarity and path, with tabs between. Everything else
goes to standard error.

    python Search_Images.py index ~/Images
    python Search_Images.py query holiday.jpg --box 120 80 640 560 --html results.html
"""

if __name__ == "__main__":  # before the imports that take seconds
    import utils.program.start  # noqa: F401

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.descriptors.describe import describe as describe_images
from utils.descriptors.prepared_network import prepared_network
from utils.descriptors.settings import descriptor_settings
from utils.descriptors.store import open_store
from utils.device import choose_device
from utils.errors import UserError, advising
from utils.figures.result_page import BEGIN
from utils.figures.search_page import write_search_page
from utils.file_names import CATALOGUE, INDEX_LOCK, INDEX_STORE, PROJECT_WEIGHTS_DIR, SEARCH_INDEX
from utils.files.lock import only_writer
from utils.files.outputs import check_output_file
from utils.files.paths import user_path
from utils.files.writing import check_writable, make_folder, replace_file
from utils.images.batches import Loading
from utils.images.listing import images_below, report_thumbnails
from utils.images.loading import Box, InputImage, check_box
from utils.options.option import Range
from utils.options.options_class import declared_options, make, option, options_class, redefault
from utils.options.parser import (
    ArgumentParser,
    add_options,
    called_with,
    called_with_first,
    make_options,
)
from utils.options.saved_options import from_json
from utils.options.shared import (
    COUNTS,
    DescriptorOptions,
    DeviceOptions,
    StoreOptions,
    StorePrecision,
)
from utils.processes import Processes
from utils.program.run_command import run_command
from utils.saved_settings import check_same_settings
from utils.search.image_index import (
    ImageIndex,
    Match,
    check_same_folder,
    read_catalogue,
    read_index,
    write_index,
)
from utils.text import escape_misleading, first_names, log_to_stderr

log = logging.getLogger(__name__)

JSON_BEGIN = b'{\n  "query": "'
"""First bytes of a file of --json."""


@options_class
class DescribeOptions(DescriptorOptions, DeviceOptions):
    """Options of the description of images."""

    weights_dir: Path = redefault(DescriptorOptions, "weights_dir", PROJECT_WEIGHTS_DIR)
    # The default here is the backbone that needs no download.
    backbone: str = redefault(DescriptorOptions, "backbone", "efficientnet_lite0")


@options_class
class IndexOptions(DescribeOptions):
    """Options of the command `index`."""

    title = "index"

    folder: Path = option(help="images, in folders or not", positional=True, kw_only=False)
    index: Path = option(default=SEARCH_INDEX, help="the index's own folder")
    store_precision: StorePrecision = redefault(StoreOptions, "store_precision", "float32")


@options_class
class QueryOptions:
    """Options of the command `query`."""

    title = "query"

    image: Path = option(help="an image file, of the index or not", positional=True)
    box: tuple[float, float, float, float] | None = option(
        default=None,
        help="part of it, in its pixels",
        valid=Range(-1_000_000, 1_000_000),
        metavar=("x1", "y1", "x2", "y2"),
    )
    index: Path = option(default=SEARCH_INDEX, help="the index's own folder")
    top: int = option(default=20, help="how many to find", valid=COUNTS)
    weights_dir: Path = option(default=PROJECT_WEIGHTS_DIR, help="folder of the weight files")
    device: str = redefault(DeviceOptions, "device", "auto")
    json: Path | None = option(default=None, help="file to write the matches to")
    html: Path | None = option(
        default=None, help="page to write, with thumbnails and what attention weighed most"
    )


@called_with_first(DescribeOptions)
def describe(images: Sequence[str | Path | InputImage], options: DescribeOptions) -> np.ndarray:
    """Describe image files, or the parts of them inside a box, InputImage(path, box).

    The options are those of the command `index`.

    Returns:
        (N, D) float32, each of Euclidean length 1.

    Raises:
        UserError: an image is unreadable, or an option is not valid.
    """
    several = [images] if isinstance(images, str | Path | InputImage) else images
    inputs = [
        image if isinstance(image, InputImage) else InputImage(user_path(image, "an image"))
        for image in several
    ]
    device = choose_device(options.device)
    settings = descriptor_settings(options, [options.pooling])
    network = prepared_network(options, json.dumps(settings), device)
    loading = Loading.on(device, options.longer_side, options.batch_size, options.workers)
    return describe_images(network, inputs, loading, Processes(0, 1, device), title="images").rows[:]


def build(options: IndexOptions) -> ImageIndex:
    """Index all images in a folder and the folders below it; the options are those of the command line.

    Images that the index holds and that have not changed are not described again; images that are gone are
    removed from it. Unreadable images are left out and listed. A killed run leaves the index as it was; the
    next run continues where the killed run stopped.

    Raises:
        UserError: there are no images, the index is of another folder or made with other options, or the
            index cannot be written.
    """
    folder = options.folder
    paths = find_images(options)
    settings = descriptor_settings(options, [options.pooling])
    device = choose_device(options.device)
    network = prepared_network(options, json.dumps(settings), device)
    loading = Loading.on(device, options.longer_side, options.batch_size, options.workers)
    make_folder(options.index)
    with only_writer(options.index / INDEX_LOCK, options.index):
        with advising("give the options that the index was made with, or name another --index"):
            precision = options.store_precision
            store = open_store(options.index / INDEX_STORE, settings, precision=precision, tidy=True)
        if not paths:  # all have gone since
            write_index(options.index, folder, [], settings, store)
            return read_index(options.index)
        descriptors = describe_images(
            network,
            [InputImage(path) for path in paths],
            loading,
            Processes(0, 1, device),
            skip_bad_images=True,
            title="images",
            store=store,
            names=[str(path.relative_to(folder)) for path in paths],
        )
        for error in descriptors.unreadable.values():
            log.warning("note: left out %s", error)
        write_index(options.index, folder, descriptors.keys, settings, store)
    return read_index(options.index)


index = called_with(IndexOptions)(build)
"""`build`, whose options Python callers give by their names: index("~/Images", index="search_index")."""


def find_images(options: IndexOptions) -> list[Path]:
    """Return the images below the folder, and note other files.

    Raises:
        UserError: there is no folder, no image in it and no index of it, or the index is of another folder.
    """
    folder = options.folder
    if not folder.is_dir():
        raise UserError(f"no folder of images at {folder}")
    check_writable(options.index)
    check_same_folder(options.index, folder)
    contents = images_below(folder)
    report_thumbnails(contents, folder)
    if contents.others:
        names = first_names([str(path.relative_to(folder)) for path in contents.others])
        log.warning(
            "note: %d files or folders are no images, or cannot be read (%s)", len(contents.others), names
        )
    if not contents.images and not (options.index / CATALOGUE).exists():
        raise UserError(f"no images in {folder} or the folders in it")
    return contents.images


def search(
    image: str | Path,
    *,
    box: Box | None = None,
    index: str | Path | ImageIndex = QueryOptions.index,
    top: int = QueryOptions.top,
    weights_dir: str | Path = QueryOptions.weights_dir,
    device: str = QueryOptions.device,
    html: str | Path | None = None,
) -> list[Match]:
    """Find the images of an index that are most similar to an image, or to the part of it inside a box.

    Args:
        image: an image file, of the index or not. An image of the index ranks before its equals.
        box: x1, y1, x2, y2 in its pixels; the image without a box if None.
        index: the index's own folder; or an index that was read before, which saves the time to read it.
        top: how many to find, at most.
        weights_dir: the weights folder that the index was made with.
        device: where to compute.
        html: a page to write with thumbnails and, for attention, heat maps.

    Returns:
        The matches by falling similarity.

    Raises:
        UserError: there is no index, it was made with other weights, or the image is unreadable.
    """
    options = QueryOptions(
        image=user_path(image, "image"),
        box=box,
        top=top,
        weights_dir=user_path(weights_dir, "weights_dir"),
        device=device,
        html=None if html is None else user_path(html, "html"),
    )
    return find(options, index if isinstance(index, ImageIndex) else read_index(user_path(index, "index")))


def find(options: QueryOptions, index: ImageIndex) -> list[Match]:
    """Find the most similar images of an index, and write the page if one is asked for."""
    if options.html is not None:
        check_output_file(options.html, BEGIN.encode())
    described = indexed_with(index, options)
    query = InputImage(options.image, options.box)
    if options.box is not None:
        check_box(query, described.longer_side)
    settings = descriptor_settings(described, [described.pooling])
    check_same_settings(index.location, index.settings, settings)

    device = choose_device(options.device)
    network = prepared_network(described, json.dumps(settings), device)
    itself = None if options.box is not None else index.index_of(query)
    if itself is None:
        loading = Loading(described.longer_side, batch_size=1, workers=0)
        processes = Processes(0, 1, device)
        descriptor = describe_images(network, [query], loading, processes, title="query").rows[:][0]
    else:
        descriptor = index.rows[np.array([itself])][0]
    nearest = index.nearest(descriptor, options.top, itself)
    matches = [
        Match(rank, similarity, index.path(place))
        for rank, (place, similarity) in enumerate(nearest, start=1)
    ]
    if stale := index.count_changed([place for place, _ in nearest]):
        log.warning("note: %d of these have gone or changed since they were indexed: index again", stale)
    if options.html is not None:
        write_search_page(options.html, query, matches, network, index)
    return matches


def indexed_with(index: ImageIndex, options: QueryOptions) -> DescribeOptions:
    """Return the options that an index was made with; an index stores only those that its pooling uses."""
    names = {one.name for one in declared_options(DescribeOptions)} & index.settings.keys()
    saved = from_json(DescribeOptions, {name: index.settings[name] for name in names}, str(index.location))
    return make(DescribeOptions, saved | {"weights_dir": options.weights_dir, "device": options.device})


def run_index(options: IndexOptions) -> None:
    """Run the command `index`, and print what the index holds then."""
    try:
        before = set(read_catalogue(options.index).keys)
    except UserError:
        before = set()
    made = build(options)
    new, gone = len(set(made.keys) - before), len(before - set(made.keys))
    print(
        f"{len(made.names)} images of {escape_misleading(str(made.folder))} "
        f"are in {escape_misleading(str(options.index))}: "
        f"{new} new or changed, {gone} forgotten"
    )


def run_query(options: QueryOptions) -> None:
    """Run the command `query`: print the matches, and write them as JSON if asked for."""
    if options.json is not None:
        check_output_file(options.json, JSON_BEGIN)
        if options.html is not None and os.path.realpath(options.json) == os.path.realpath(options.html):
            raise UserError(f"--json and --html name the same file, {options.json}: name two")
    matches = find(options, read_index(options.index))
    if options.json is not None:
        contents = {
            "query": str(options.image),
            "box": options.box,
            "matches": [match._asdict() | {"path": str(match.path)} for match in matches],
        }
        with replace_file(options.json) as file:
            file.write(json.dumps(contents, indent=2).encode() + b"\n")
    for match in matches:
        print(f"{match.rank}\t{match.similarity:.4f}\t{escape_misleading(str(match.path))}")


def command_line(words: Sequence[str] | None = None) -> None:
    """Read the options, of this process if no words are given, and run one of the commands."""
    parser = ArgumentParser(__doc__.splitlines()[0])
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="index|query", help="each has its own --help"
    )
    summary = "describe a folder of images, or what is new in it"
    add_options(commands.add_parser("index", help=summary, description=summary), IndexOptions)
    summary = "find the images most similar to one"
    add_options(commands.add_parser("query", help=summary, description=summary), QueryOptions)
    given = parser.parse_args(words)
    command = vars(given).pop("command")
    if command == "index":
        run_index(make_options(IndexOptions, given))
    else:
        run_query(make_options(QueryOptions, given))


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_command(command_line))
