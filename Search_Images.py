"""Search images: describe a folder of images once, then find the images that show the same object as a query.

Results go to standard output, one line per image: rank, similarity and path, separated by tabs. All messages
go to standard error.

    python Search_Images.py index ~/Images
    python Search_Images.py query holiday.jpg --box 120 80 640 560 --html results.html
    python Search_Images.py serve
    python Search_Images.py export photos.parquet
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    import utils.program.start  # noqa: F401

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from models.poolings.registry import PoolingName
from utils.descriptors.describe import Descriptors
from utils.descriptors.describe import describe as describe_images
from utils.descriptors.export import Table, check_export_file, export, stored_table
from utils.descriptors.image_describer import GivenImages, ImageDescriber, input_images
from utils.descriptors.prepared_network import prepared_network
from utils.descriptors.settings import descriptor_settings
from utils.descriptors.store import DescriptorStore, open_store
from utils.device import choose_device
from utils.errors import UserError, advising
from utils.figures.result_page import BEGIN
from utils.figures.search_page import index_note, write_search_page
from utils.file_names import (
    APPROXIMATE_FOLDER,
    CATALOGUE,
    INDEX_LOCK,
    INDEX_PENDING,
    INDEX_STORE,
    PROJECT_WEIGHTS_DIR,
    SEARCH_INDEX,
)
from utils.files.lock import only_writer
from utils.files.outputs import check_output_file
from utils.files.paths import user_path
from utils.files.records import write_json
from utils.files.writing import check_writable, make_folder
from utils.images.batches import Loading
from utils.images.listing import images_below, report_left_out
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
from utils.search.approximate import load_faiss
from utils.search.approximate_index import is_approximate
from utils.search.approximate_update import MATCHES, update_approximate
from utils.search.image_index import (
    ImageIndex,
    Match,
    check_same_folder,
    read_catalogue,
    read_index,
    write_index,
)
from utils.search.milvus import Address, check_address
from utils.search.milvus_index import Changes, MilvusIndex, update_milvus_index
from utils.serve.searcher import PhotoSearcher
from utils.text import escape_misleading, first_names, log_to_stderr
from utils.weights.check_on_images import note_preprocessing

log = logging.getLogger(__name__)

JSON_BEGIN = b'{\n  "query": "'
"""First bytes of a file written by --json, by which such a file is recognised."""


@options_class
class DescribeOptions(DescriptorOptions, DeviceOptions):
    """Options of the description of images."""

    weights_dir: Path = redefault(DescriptorOptions, "weights_dir", PROJECT_WEIGHTS_DIR)
    # This backbone needs no download.
    backbone: str = redefault(DescriptorOptions, "backbone", "efficientnet_lite0")


@options_class
class MilvusOptions:
    """Options of an index in Milvus."""

    title = "Milvus"

    milvus: str | None = option(
        default=None,
        help="keep the index in Milvus: a local database, as photos.db, or the address of a server",
        metavar="URI",
    )
    collection: str = option(default="photos", help="name of the collection in Milvus", metavar="NAME")

    @property
    def address(self) -> Address | None:
        """The collection in Milvus, if the index is there."""
        return None if self.milvus is None else Address(self.milvus, self.collection)

    def check(self) -> None:
        """Check the address.

        Raises:
            UserError: it is not valid, or --collection has no effect.
        """
        if self.address is not None:
            check_address(self.address)
        elif self.collection != MilvusOptions.collection:
            raise UserError(f"collection {self.collection} has no effect without milvus: give both")


@options_class
class IndexOptions(DescribeOptions, MilvusOptions):
    """Options of the command `index`."""

    title = "index"

    folder: Path = option(help="folder of images, searched recursively", positional=True, kw_only=False)
    index: Path = option(default=SEARCH_INDEX, help="folder of the index")
    store_precision: StorePrecision = redefault(StoreOptions, "store_precision", "float32")
    approximate: bool = option(
        default=False,
        help="make an approximate index (FAISS), which is faster in large folders; later runs update it",
    )

    def check(self) -> None:
        """Check that no option is given that has no effect in Milvus.

        Raises:
            UserError: an option has no effect.
        """
        if self.milvus is not None and self.approximate:
            raise UserError("approximate has no effect in Milvus: leave one out")
        if self.milvus is not None and self.store_precision != "float32":
            raise UserError(f"store_precision {self.store_precision} has no effect in Milvus: leave one out")


@options_class
class QueryOptions(MilvusOptions):
    """Options of the command `query`."""

    title = "query"

    image: Path = option(help="an image file, indexed or not", positional=True)
    box: tuple[float, float, float, float] | None = option(
        default=None,
        help="part of the image to search for, in its pixels",
        valid=Range(-1_000_000, 1_000_000),
        metavar=("x1", "y1", "x2", "y2"),
    )
    index: Path = option(default=SEARCH_INDEX, help="folder of the index")
    top: int = option(default=20, help="largest number of matches", valid=COUNTS)
    exact: bool = option(default=False, help="compare all images, although the index is approximate")
    weights_dir: Path = option(default=PROJECT_WEIGHTS_DIR, help="folder of the weight files")
    backbone_weights: Path | None = redefault(DescriptorOptions, "backbone_weights", None)
    device: str = redefault(DeviceOptions, "device", "auto")
    json: Path | None = option(default=None, help="file to write the matches to")
    html: Path | None = option(
        default=None, help="page to write, with thumbnails and heat maps of the attention"
    )

    def check(self) -> None:
        """Check that no option is given that has no effect in Milvus.

        Raises:
            UserError: an option has no effect.
        """
        if self.milvus is not None and self.exact:
            raise UserError("exact has no effect in Milvus: leave one out")


@options_class
class ServeOptions:
    """Options of the command `serve`."""

    title = "serve"

    index: Path = redefault(QueryOptions, "index", SEARCH_INDEX)
    top: int = redefault(QueryOptions, "top", 20)
    host: str = option(
        default="127.0.0.1", help="address to listen at; others can reach it unless it is local"
    )
    port: int = option(default=8080, help="port to listen at; 0 for any free port", valid=Range(0, 65535))
    weights_dir: Path = redefault(QueryOptions, "weights_dir", PROJECT_WEIGHTS_DIR)
    backbone_weights: Path | None = redefault(DescriptorOptions, "backbone_weights", None)
    device: str = redefault(DeviceOptions, "device", "auto")


@options_class
class ExportOptions:
    """Options of the command `export`."""

    title = "export"

    file: Path = option(
        help="file to write: .parquet, or .npy with a .json of paths beside it", positional=True
    )
    index: Path = option(default=SEARCH_INDEX, help="folder of the index")
    descriptors: Path | None = option(
        default=None, help="export the descriptor store of an evaluation, in this folder, instead of an index"
    )
    pooling: PoolingName | None = option(
        default=None, help="pooling whose descriptors to export, for a store with several"
    )

    def check(self) -> None:
        """Check that options of stores are not given for an index.

        Raises:
            UserError: an option has no effect.
        """
        if self.descriptors is None and self.pooling is not None:
            raise UserError("pooling has no effect without descriptors: an index has one pooling")
        if self.descriptors is not None and self.index != SEARCH_INDEX:
            raise UserError("index and descriptors are both given: export one of them")


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
    network = prepared_network(options, json.dumps(settings), device)
    describer = ImageDescriber(network, options.longer_side, options.batch_size, options.workers)
    return describer.describe(inputs)


def build(options: IndexOptions) -> ImageIndex | MilvusIndex:
    """Index all images in a folder and the folders below it.

    Images that are indexed and have not changed are not described again. Images that no longer exist are
    removed from the index. Unreadable images are left out and logged. A killed run leaves the index
    unchanged, and the next run continues from the last image that the killed run described.

    Raises:
        UserError: there are no images, the index is of another folder or made with other options, or the
            index cannot be written.
    """
    if options.address is not None:
        build_in_milvus(options, options.address)
        return MilvusIndex(options.address)
    folder = options.folder
    if is_approximate(options.index):
        load_faiss(f"delete {options.index / APPROXIMATE_FOLDER}")
    elif options.approximate:
        load_faiss("leave --approximate out")
    paths = find_images(options)
    settings = descriptor_settings(options, [options.pooling])
    make_folder(options.index)
    with only_writer(options.index / INDEX_LOCK, options.index):
        with advising("give the options that the index was made with, or name another --index"):
            precision = options.store_precision
            store = open_store(options.index / INDEX_STORE, settings, precision=precision, tidy=True)
        if not paths:  # all indexed images were deleted
            write_index(options.index, folder, [], settings, store)
            return read_index(options.index)
        note_preprocessing(options, paths)
        names = [str(path.relative_to(folder)) for path in paths]
        descriptors = describe_into(store, names, options, settings)
        write_index(options.index, folder, descriptors.keys, settings, store)
        made = read_index(options.index)
        if options.approximate or is_approximate(options.index):
            update_approximate(options.index, made.keys, made.rows, made.settings)
    return made


def build_in_milvus(options: IndexOptions, address: Address) -> Changes:
    """Index images as `build` does, in Milvus, and return the numbers of images.

    Raises:
        UserError: as for `build`, or Milvus does not answer.
    """
    paths = find_images(options)
    settings = descriptor_settings(options, [options.pooling])
    make_folder(options.index)
    with only_writer(options.index / INDEX_LOCK, options.index):
        if paths:
            note_preprocessing(options, paths)
        return update_milvus_index(
            address,
            options.index / INDEX_PENDING,
            options.folder,
            [str(path.relative_to(options.folder)) for path in paths],
            settings,
            lambda names, store: describe_into(store, names, options, settings),
        )


def describe_into(
    store: DescriptorStore, names: Sequence[str], options: IndexOptions, settings: Mapping[str, object]
) -> Descriptors:
    """Describe images of the folder that are not in a store, add them to it, and log unreadable images.

    Args:
        store: the store.
        names: path of each image, relative to the folder.
        options: options of the description.
        settings: settings of the descriptors.

    Returns:
        The descriptors of all readable images.
    """
    device = choose_device(options.device)
    descriptors = describe_images(
        prepared_network(options, json.dumps(settings), device),
        [InputImage(options.folder / name) for name in names],
        Loading.on(device, options.longer_side, options.batch_size, options.workers),
        Processes(0, 1, device),
        skip_bad_images=True,
        title="images",
        store=store,
        names=names,
    )
    for error in descriptors.unreadable.values():
        log.warning("note: left out %s", error)
    return descriptors


index = called_with(IndexOptions)(build)
"""`build` for Python callers, with the options as arguments: index("~/Images", index="search_index")."""


def find_images(options: IndexOptions) -> list[Path]:
    """Return the images below the folder, and log other files.

    Raises:
        UserError: the folder does not exist, it has neither images nor an index, or the index is of another
            folder or cannot be written.
    """
    folder = options.folder
    if not folder.is_dir():
        raise UserError(f"no folder of images at {folder}")
    check_writable(options.index)
    if options.milvus is None:
        check_same_folder(options.index, folder)
    contents = images_below(folder)
    report_left_out(contents, folder)
    if contents.others:
        names = first_names([str(path.relative_to(folder)) for path in contents.others])
        log.warning(
            "note: %d files or folders are no images, or cannot be read (%s)", len(contents.others), names
        )
    if not contents.images and options.milvus is None and not (options.index / CATALOGUE).exists():
        raise UserError(f"no images in {folder} or the folders in it")
    return contents.images


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
    options = QueryOptions(
        image=user_path(image, "image"),
        box=box,
        top=top,
        exact=exact,
        weights_dir=user_path(weights_dir, "weights_dir"),
        backbone_weights=None
        if backbone_weights is None
        else user_path(backbone_weights, "backbone_weights"),
        device=device,
        html=None if html is None else user_path(html, "html"),
    )
    opened = read_index(user_path(index, "index")) if isinstance(index, str | Path) else index
    return find(options, opened)


def find(options: QueryOptions, index: ImageIndex | MilvusIndex) -> list[Match]:
    """Find the most similar images of an index, and write a page if --html is given.

    Raises:
        UserError: the index was made with other weights, the image or its box is invalid, or the page cannot
            be written.
    """
    if options.html is not None:
        check_output_file(options.html, BEGIN.encode())
    described = indexed_with(index, options)
    query = InputImage(options.image, options.box)
    if options.box is not None:
        check_box(query, described.longer_side)
    settings = descriptor_settings(described, [described.pooling])
    check_same_settings(index.location, index.settings, settings)

    device = choose_device(options.device)
    part = index if isinstance(index, ImageIndex) else index.with_image(query)
    itself = None if options.box is not None else part.index_of(query)
    # An indexed image has a descriptor: without a page of heat maps, the network is not loaded.
    network = None
    if itself is None or options.html is not None:
        network = prepared_network(described, json.dumps(settings), device)
    if itself is None:
        assert network is not None
        loading = Loading(described.longer_side, batch_size=1, workers=0)
        processes = Processes(0, 1, device)
        descriptor = describe_images(network, [query], loading, processes, title="query").rows[:][0]
    else:
        descriptor = part.rows[np.array([itself])][0]
    if isinstance(index, MilvusIndex):
        part = index.nearest(descriptor, options.top, part)
        itself = None if itself is None else part.index_of(query)
    nearest = part.nearest(descriptor, options.top, itself, options.exact)
    matches = [
        Match(rank, similarity, part.path(row)) for rank, (row, similarity) in enumerate(nearest, start=1)
    ]
    if changed := part.count_changed([row for row, _ in nearest]):
        log.warning("note: %d matches were deleted or changed after indexing: index again", changed)
    if options.html is not None and network is not None:
        write_search_page(options.html, query, matches, network, part)
    return matches


def indexed_with(index: ImageIndex | MilvusIndex, options: QueryOptions | ServeOptions) -> DescribeOptions:
    """Return the options that an index was made with. An index stores only the options that matter to it.

    Raises:
        UserError: a setting of the index is invalid.
    """
    names = {one.name for one in declared_options(DescribeOptions)} & index.settings.keys()
    saved = from_json(DescribeOptions, {name: index.settings[name] for name in names}, str(index.location))
    given = {name: getattr(options, name) for name in ("weights_dir", "backbone_weights", "device")}
    return make(DescribeOptions, saved | given)


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
        UserError: there is no index, it was made with other weights, the image is unreadable, or a file
            cannot be written.
    """
    if options.json is not None:
        check_output_file(options.json, JSON_BEGIN)
        if options.html is not None and os.path.realpath(options.json) == os.path.realpath(options.html):
            raise UserError(f"--json and --html name the same file, {options.json}: name two files")
    if options.address is None:
        matches = find(options, read_index(options.index))
    else:
        with closing(MilvusIndex(options.address)) as index:
            matches = find(options, index)
    if options.json is not None:
        contents = {
            "query": str(options.image),
            "box": options.box,
            "matches": [match._asdict() | {"path": str(match.path)} for match in matches],
        }
        write_json(options.json, contents)
    for match in matches:
        print(f"{match.rank}\t{match.similarity:.4f}\t{escape_misleading(str(match.path))}")


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
    settings = descriptor_settings(described, [described.pooling])
    check_same_settings(index.location, index.settings, settings)
    network = prepared_network(described, json.dumps(settings), choose_device(options.device))
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
        UserError: an option is invalid, or as for `run_index`, `run_query`, `run_serve` and `run_export`.
    """
    parser = ArgumentParser(__doc__.splitlines()[0])
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="index|query|serve|export", help="each has its own --help"
    )
    summary = "describe the images of a folder, or only its new images if it is indexed"
    add_options(commands.add_parser("index", help=summary, description=summary), IndexOptions)
    summary = "find the images most similar to an image"
    add_options(commands.add_parser("query", help=summary, description=summary), QueryOptions)
    summary = "show a page on which to search with photos, in a browser on this computer"
    add_options(commands.add_parser("serve", help=summary, description=summary), ServeOptions)
    summary = "write the descriptors to a file for other programs"
    add_options(commands.add_parser("export", help=summary, description=summary), ExportOptions)
    given = parser.parse_args(words)
    command = vars(given).pop("command")
    if command == "index":
        run_index(make_options(IndexOptions, given))
    elif command == "serve":
        run_serve(make_options(ServeOptions, given))
    elif command == "export":
        run_export(make_options(ExportOptions, given))
    else:
        run_query(make_options(QueryOptions, given))


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_command(command_line))
