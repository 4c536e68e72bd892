"""Search images: describe a folder of images once, then find the images that show the same object as a query.

Results go to standard output, one line per image: rank, similarity and path, separated by tabs; for several
queries, also the path of the query. All messages go to standard error.

    python Search_Images.py index ~/Images
    python Search_Images.py query holiday.jpg --box 120 80 640 560 --html results.html
    python Search_Images.py duplicates
    python Search_Images.py serve
    python Search_Images.py export photos.parquet
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    import utils.program.start  # noqa: F401

import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from utils.descriptors.export import Table, check_export_file, export, stored_table
from utils.descriptors.image_describer import GivenImages, ImageDescriber, input_images
from utils.descriptors.prepared_network import prepared_network
from utils.descriptors.settings import descriptor_settings
from utils.device import choose_device
from utils.errors import UserError
from utils.figures.search_page import index_note
from utils.files.paths import optional_path, user_path
from utils.image_index.approximate_update import MATCHES
from utils.image_index.catalogue import read_catalogue
from utils.image_index.image_index import ImageIndex, Match, QueryMatches, read_index
from utils.image_index.milvus_index import Changes, MilvusIndex
from utils.images.loading import Box, InputImage
from utils.options.parser import (
    ArgumentParser,
    add_options,
    called_with,
    called_with_first,
    make_options,
)
from utils.photo_search.duplicates import find_duplicates, group_lines
from utils.photo_search.indexing import build, build_in_milvus
from utils.photo_search.matching import checked_settings, find_each, indexed_with
from utils.photo_search.options import (
    DescribeOptions,
    DuplicatesOptions,
    ExportOptions,
    IndexOptions,
    MatchOptions,
    QueryOptions,
    ServeOptions,
)
from utils.photo_search.queries import is_one_image, query_images
from utils.photo_search.results import check_outputs, match_lines, write_matches
from utils.program.run_command import run_command
from utils.serve.searcher import PhotoSearcher
from utils.text import escape_misleading, log_to_stderr

log = logging.getLogger(__name__)


@called_with_first(DescribeOptions)
def describe(images: GivenImages, options: DescribeOptions) -> np.ndarray:
    """Describe images: paths, or images of Pillow and uint8 tensors (3, H, W), RGB.

    An `InputImage(path, box)` stands for the part of an image inside a box. The options are those of the
    command `index`.

    Returns:
        Descriptors (N, D) float32, each of Euclidean length 1.

    Raises:
        InvalidImageError: there are no images, or one is of another type or shape.
        UserError: an image is unreadable, or an option is not valid.
    """
    inputs = input_images(images)
    device = choose_device(options.device)
    settings = descriptor_settings(options, [options.pooling])
    network = prepared_network(options, settings, device)
    describer = ImageDescriber(network, options.longer_side, options.batch_size, options.workers)
    return describer.describe(inputs)


index = called_with(IndexOptions)(build)
"""`build` for Python callers, with the options as arguments: index("~/Images", index="search_index")."""


def search(
    image: str | Path,
    *,
    box: Box | None = None,
    index: str | Path | ImageIndex | MilvusIndex = QueryOptions.index,
    top: int = QueryOptions.top,
    exact: bool = False,
    weights_dir: str | Path = QueryOptions.weights_dir,
    backbone_weights: str | Path | None = None,
    device: str = QueryOptions.device,
    html: str | Path | None = None,
) -> list[Match]:
    """Find the images of an index that are most similar to an image, or to the part of it inside a box.

    Args:
        image: an image file, indexed or not. An indexed image ranks before its duplicates.
        box: x1, y1, x2, y2 in pixels of the image; None for the complete image.
        index: folder of the index, or an index that has been read, also `MilvusIndex(Address(...))`.
        top: largest number of matches.
        exact: compare all images, although the index is approximate.
        weights_dir: folder of the weights that the index was made with.
        backbone_weights: state dict of the backbone that the index was made with; None for the published
            weights.
        device: device to compute on.
        html: page to write, with thumbnails and heat maps of the attention.

    Returns:
        The matches in order of decreasing similarity.

    Raises:
        UserError: there is no index, it was made with other weights, or the image is unreadable.
    """
    options = MatchOptions(
        box=box,
        top=top,
        exact=exact,
        weights_dir=user_path(weights_dir, "weights_dir"),
        backbone_weights=optional_path(backbone_weights, "backbone_weights"),
        device=device,
        html=optional_path(html, "html"),
    )
    query = InputImage(user_path(image, "image"), options.box)
    opened = read_index(user_path(index, "index")) if isinstance(index, str | Path) else index
    return find_each([query], options, opened)[0].matches


@called_with_first(MatchOptions)
def search_each(images: str | Path | Sequence[str | Path], options: MatchOptions) -> list[QueryMatches]:
    """Find the images of an index that are most similar to each of several images.

    Image files and folders of images can be given. The options are those of `query`, by name, except `json`.
    An unreadable image is left out, with a note.

    Returns:
        The queries with their matches, in the order of the images.

    Raises:
        UserError: there is no index, it was made with other weights, or no image is readable.
    """
    paths = [images] if isinstance(images, str | Path) else images
    return open_and_find([user_path(path, "images") for path in paths], options)


duplicates = called_with(DuplicatesOptions)(find_duplicates)
"""`find_duplicates` for Python callers, with the options as arguments: duplicates(threshold=0.9)."""


def run_index(options: IndexOptions) -> None:
    """Run the command `index`, and print the number of indexed images.

    Raises:
        UserError: as for `build`.
    """
    if options.address is not None:
        changes = build_in_milvus(options, options.address)
        print_indexed(options.folder.resolve(), str(options.address), changes)
        return
    try:
        before = set(read_catalogue(options.index).keys)
    except UserError:
        before = set()
    made = build(options)
    assert isinstance(made, ImageIndex)
    keys = set(made.keys)
    changes = Changes(len(made.names), len(keys - before), len(before - keys))
    print_indexed(made.folder, str(options.index), changes)
    if (approximate := made.approximate) is not None:
        record = approximate.record
        print(
            f"approximate index: {record['probes']} of {record['lists']} lists per query, "
            f"recall@{MATCHES} {100 * record['recall']:.1f} %"
        )


def print_indexed(folder: Path, index: str, changes: Changes) -> None:
    """Print the numbers of images in an index."""
    print(
        f"{changes.images} images of {escape_misleading(str(folder))} are in {escape_misleading(index)}: "
        f"{changes.new} new or changed, {changes.removed} removed"
    )


def run_query(options: QueryOptions) -> None:
    """Run the command `query`: print the matches, and write them as JSON if --json is given.

    Raises:
        UserError: there is no index, it was made with other weights, no image is readable, or a file cannot
            be written.
    """
    check_outputs(options.json, options.html)
    results = open_and_find(options.images, options)
    one_image = is_one_image(options.images)
    if options.json is not None:
        write_matches(options.json, results, one_image)
    for line in match_lines(results, one_image):
        print(line)


def open_and_find(images: Sequence[Path], options: MatchOptions) -> list[QueryMatches]:
    """Open the index, and find the most similar images for each image; see `find_each`.

    Args:
        images: image files and folders of images.
        options: options of the search.

    Raises:
        UserError: there is no index, or there are no images, or as for `find_each`.
    """
    if options.address is None:
        return find_each(query_images(images, options.box), options, read_index(options.index))
    with closing(MilvusIndex(options.address)) as index:
        return find_each(query_images(images, options.box), options, index)


def run_duplicates(options: DuplicatesOptions) -> None:
    """Run the command `duplicates`: print the images of each group.

    Raises:
        UserError: as for `find_duplicates`.
    """
    groups = find_duplicates(options)
    for line in group_lines(groups):
        print(line)
    log.info("%d images in %d groups", sum(map(len, groups)), len(groups))


def run_serve(options: ServeOptions) -> None:
    """Run the command `serve`: serve the page of an index until Ctrl-C.

    Raises:
        UserError: there is no index, it was made with other weights, the address is in use, or a package is
            missing.
    """
    try:
        from utils.serve.server import bind, serve
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise UserError("serve needs Starlette and uvicorn: pip install starlette uvicorn") from error
    with bind(options.host, options.port) as server:
        searcher = open_searcher(options)
        searcher.warm_up()
        serve(searcher, server, index_note(searcher.index))


def open_searcher(options: ServeOptions) -> PhotoSearcher:
    """Read an index and its network.

    Raises:
        UserError: there is no index, or it was made with other weights.
    """
    index = read_index(options.index)
    described = indexed_with(index, options)
    settings = checked_settings(index, described)
    network = prepared_network(described, settings, choose_device(options.device))
    return PhotoSearcher(index, network, described.longer_side, options.top)


def run_export(options: ExportOptions) -> None:
    """Run the command `export`: write the descriptors of an index or a store to a file.

    Raises:
        UserError: there is no index or store, it has no descriptors, or the file cannot be written.
    """
    check_export_file(options.file)
    if options.descriptors is not None:
        table = stored_table(options.descriptors, options.pooling)
    else:
        index = read_index(options.index)
        table = Table([str(index.path(row)) for row in range(len(index.names))], None, index.rows)
    export(options.file, table)
    count, width = table.rows.shape
    print(
        f"{count} descriptors of {width} dimensions, {table.rows.dtype}, "
        f"are in {escape_misleading(str(options.file))}"
    )


def command_line(words: Sequence[str] | None = None) -> None:
    """Parse the words, or the command line of this process if there are none, and run the command.

    Raises:
        UserError: an option is invalid, or as for the commands.
    """
    parser = ArgumentParser(__doc__.splitlines()[0])
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="index|query|duplicates|serve|export",
        help="each has its own --help",
    )
    summary = "describe the images of a folder, or only its new images if it is indexed"
    add_options(commands.add_parser("index", help=summary, description=summary), IndexOptions)
    summary = "find the images most similar to an image, or to each of several images"
    add_options(commands.add_parser("query", help=summary, description=summary), QueryOptions)
    summary = "find groups of near duplicates in an index"
    add_options(commands.add_parser("duplicates", help=summary, description=summary), DuplicatesOptions)
    summary = "show a page on which to search with photos, in a browser on this computer"
    add_options(commands.add_parser("serve", help=summary, description=summary), ServeOptions)
    summary = "write the descriptors to a file for other programs"
    add_options(commands.add_parser("export", help=summary, description=summary), ExportOptions)
    given = parser.parse_args(words)
    command = vars(given).pop("command")
    if command == "index":
        run_index(make_options(IndexOptions, given))
    elif command == "duplicates":
        run_duplicates(make_options(DuplicatesOptions, given))
    elif command == "serve":
        run_serve(make_options(ServeOptions, given))
    elif command == "export":
        run_export(make_options(ExportOptions, given))
    else:
        run_query(make_options(QueryOptions, given))


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_command(command_line))
