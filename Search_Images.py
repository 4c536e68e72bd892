"""Searches one's own photographs: describes a folder of them once, then finds those that show the same thing.

Results go to standard output, a line a picture: rank, similarity and path, with tabs between. Everything else
goes to standard error.

    python Search_Images.py index ~/Pictures
    python Search_Images.py query holiday.jpg --box 120 80 640 560 --html results.html
"""

if __name__ == "__main__":  # before the imports that take seconds
    import utils.program.start  # noqa: F401

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.attention import Activation
from models.backbones import BACKBONES
from models.retrieval_network import Pooling
from utils.descriptors.describe import describe as describe_pictures
from utils.descriptors.prepared_network import prepare
from utils.descriptors.settings import descriptor_settings
from utils.descriptors.store import StorePrecision, open_store
from utils.errors import UserError, advising, run_command
from utils.figures.search_page import write_search_page
from utils.file_names import CATALOGUE, INDEX_LOCK, INDEX_STORE, OWN_WEIGHTS_DIR, SEARCH_INDEX
from utils.files.lock import only_writer
from utils.files.paths import user_path
from utils.files.writing import check_writable, make_folder, replace_file
from utils.images.listing import images_below, report_thumbnails
from utils.images.loading import Box, Picture, check_box
from utils.options import arguments, evaluation_arguments
from utils.options.ranges import RANGES
from utils.saved_settings import check_same_settings
from utils.search.image_index import PictureIndex, check_same_folder, read_catalogue, read_index, write_index
from utils.text import log_to_stderr, shown, some_of

log = logging.getLogger(__name__)

BACKBONE = "efficientnet_lite0"
"""The default here, since it needs no download."""

TOP = 20


class Match(NamedTuple):
    """A picture that was found: its rank from 1, its similarity to the query, -1..1, and its file."""

    rank: int
    similarity: float
    path: Path


def describe(
    pictures: Sequence[str | Path | Picture],
    *,
    weights_dir: str | Path = OWN_WEIGHTS_DIR,
    backbone: str = BACKBONE,
    pooling: Pooling = evaluation_arguments.POOLING,
    whiten: bool = True,
    S: int = arguments.LONGER_SIDE,
    L: int = arguments.LEVELS,
    activation: Activation = arguments.ACTIVATION,
    scales: Sequence[float] = evaluation_arguments.SCALES,
    device: str = arguments.DEVICE,
    precision: str = arguments.PRECISION,
    batch_size: int | None = None,
    workers: int | None = None,
) -> np.ndarray:
    """Describes image files, a list of them, or the parts of them that Picture(path, box) tells of.

    The options are those of the command line.

    Returns:
        (N, D) float32, each of Euclidean length 1.

    Raises:
        UserError: a picture cannot be decoded, or an option does not fit.
    """
    options = dict(locals())
    if isinstance(pictures, str | Path | Picture):
        pictures = [pictures]
    chosen = [
        picture if isinstance(picture, Picture) else Picture(user_path(picture, "a picture"))
        for picture in pictures
    ]
    arguments.check_options(options)
    options["weights_dir"] = user_path(weights_dir, "weights_dir")
    network, how = prepare(options, descriptor_settings(options, options["weights_dir"]))
    return describe_pictures(network, BACKBONES[backbone], chosen, title="pictures", **how).rows[:]


def index(
    folder: str | Path,
    *,
    index: str | Path = SEARCH_INDEX,
    weights_dir: str | Path = OWN_WEIGHTS_DIR,
    backbone: str = BACKBONE,
    pooling: Pooling = evaluation_arguments.POOLING,
    whiten: bool = True,
    S: int = arguments.LONGER_SIDE,
    L: int = arguments.LEVELS,
    activation: Activation = arguments.ACTIVATION,
    scales: Sequence[float] = evaluation_arguments.SCALES,
    device: str = arguments.DEVICE,
    precision: str = arguments.PRECISION,
    batch_size: int | None = None,
    workers: int | None = None,
    store_precision: StorePrecision = evaluation_arguments.STORE_PRECISION,
) -> PictureIndex:
    """Indexes all pictures in a folder and the folders in it; the options are those of the command line.

    Pictures that the index holds and that have not changed are not looked at again, those that are gone are
    forgotten. What cannot be decoded is left out and listed. A run that was killed leaves the index as it was
    before; the next one goes on where it was. `index` is the index's own folder.

    Raises:
        UserError: there are no pictures, the index is of others or made with other options, or it cannot be
            written.
    """
    options = dict(locals())
    arguments.check_options(options)
    folder, index = user_path(folder, "folder"), user_path(index, "index")
    options["weights_dir"] = weights_dir = user_path(weights_dir, "weights_dir")
    if not folder.is_dir():
        raise UserError(f"no folder of pictures at {folder}")
    check_writable(index)
    check_same_folder(index, folder)
    contents = images_below(folder)
    paths = contents.images
    report_thumbnails(contents, folder)
    if contents.others:
        told = some_of([str(path.relative_to(folder)) for path in contents.others])
        log.warning(
            "note: %d files or folders are no pictures, or cannot be read (%s)", len(contents.others), told
        )
    if not paths and not (index / CATALOGUE).exists():
        raise UserError(f"no pictures in {folder} or the folders in it")

    settings = descriptor_settings(options, weights_dir)
    network, how = prepare(options, settings)
    make_folder(index)
    with only_writer(index / INDEX_LOCK):
        with advising("give the options that the index was made with, or name another --index"):
            store = open_store(index / INDEX_STORE, settings, precision=store_precision, tidy=True)
        if not paths:  # all have gone since
            write_index(index, folder, [], settings, store)
            return read_index(index)
        found = describe_pictures(
            network,
            BACKBONES[backbone],
            [Picture(path) for path in paths],
            skip_bad_images=True,
            title="pictures",
            store=store,
            names=[str(path.relative_to(folder)) for path in paths],
            **how,
        )
        for error in found.bad.values():
            log.warning("note: left out %s", error)
        write_index(index, folder, found.keys, settings, store)
    return read_index(index)


def search(
    picture: str | Path,
    *,
    box: Box | None = None,
    index: str | Path | PictureIndex = SEARCH_INDEX,
    top: int = TOP,
    weights_dir: str | Path = OWN_WEIGHTS_DIR,
    device: str = arguments.DEVICE,
    html: str | Path | None = None,
) -> list[Match]:
    """Finds the pictures of an index that are most similar to a picture, or to the part of it inside a box.

    Args:
        picture: an image file, of the index or not. Of its equals in the index it comes first itself.
        box: x1, y1, x2, y2 in its pixels; all of it if not given.
        index: the index's own folder; or an index that is read already, which saves the time to read it.
        top: how many to find, at most.
        weights_dir: the weights folder that the index was made with.
        device: where to compute.
        html: a page to write with thumbnails and, where attention was used, what it looked at.

    Returns:
        The matches by falling similarity.

    Raises:
        UserError: there is no index, it was made with other weights, or the picture cannot be decoded.
    """
    arguments.check_options({"box": box, "top": top})
    weights_dir = user_path(weights_dir, "weights_dir")
    if html is not None:
        html = user_path(html, "html")
        check_writable(html.parent)
    query = Picture(user_path(picture, "picture"), box)
    opened = index if isinstance(index, PictureIndex) else read_index(user_path(index, "index"))
    if box is not None:
        check_box(query, opened.settings["S"])
    # Of what a pooling does not depend on an index knows nothing.
    options = {"activation": arguments.ACTIVATION, "L": arguments.LEVELS, **opened.settings}
    options["device"] = device
    options |= {"weights_dir": weights_dir, "batch_size": 1, "workers": 0}
    now = descriptor_settings(options, weights_dir)
    check_same_settings(opened.folder, opened.settings, json.loads(json.dumps(now)))

    itself = None if box is not None else opened.place_of(query)
    network, how = prepare(options, now)
    if itself is None:
        entry = BACKBONES[str(options["backbone"])]
        descriptor = describe_pictures(network, entry, [query], title="query", **how).rows[0]
    else:
        descriptor = opened.rows[np.array([itself])][0]
    nearest = opened.nearest(descriptor, top, itself)
    matches = [
        Match(rank, similarity, opened.path(place))
        for rank, (place, similarity) in enumerate(nearest, start=1)
    ]
    if stale := opened.changed([place for place, _ in nearest]):
        log.warning("note: %d of these have gone or changed since they were indexed: index again", stale)
    if html is not None:
        write_search_page(html, query, matches, network, opened)
    return matches


def run_index(options: dict[str, object]) -> None:
    """The command `index`: says what there is then."""
    try:
        before = set(read_catalogue(options["index"]).keys)
    except UserError:
        before = set()
    made = index(**options)
    new, gone = len(set(made.keys) - before), len(before - set(made.keys))
    print(
        f"{len(made.names)} pictures of {shown(str(made.folder))} are in {shown(str(options['index']))}: "
        f"{new} new or changed, {gone} forgotten"
    )


def run_query(options: dict[str, object]) -> None:
    """The command `query`: prints the matches, and writes them as JSON where asked."""
    json_file = options.pop("json")
    if json_file is not None:
        check_writable(json_file.parent)
    matches = search(**options)
    if json_file is not None:
        told = {
            "query": str(options["picture"]),
            "box": options["box"],
            "matches": [match._asdict() | {"path": str(match.path)} for match in matches],
        }
        with replace_file(json_file) as file:
            file.write(json.dumps(told, indent=2).encode() + b"\n")
    for match in matches:
        print(f"{match.rank}\t{match.similarity:.4f}\t{shown(str(match.path))}")


def command_line(words: Sequence[str] | None = None) -> None:
    """Reads the options, of this process if none are given, and runs one of the commands."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="index|query", help="each has its own --help"
    )

    told = "describe a folder of pictures, or what is new in it"
    indexing = commands.add_parser("index", help=told, description=told)
    indexing.add_argument("folder", type=arguments.path, help="pictures, in folders or not")
    arguments.add_backbone_options(indexing, backbone=BACKBONE)
    indexing.set_defaults(weights_dir=OWN_WEIGHTS_DIR)
    arguments.add_attention_options(indexing)
    evaluation_arguments.add_descriptor_options(indexing)
    arguments.add_picture_options(indexing)
    arguments.add_device_options(indexing)
    indexing.add_argument(
        "--store-precision",
        choices=arguments.CHOICES["store_precision"],
        default=evaluation_arguments.STORE_PRECISION,
        help="number type of the descriptors in the index",
    )

    told = "find the pictures most similar to one"
    querying = commands.add_parser("query", help=told, description=told)
    querying.add_argument("picture", type=arguments.path, help="an image file, of the index or not")
    querying.add_argument(
        "--box",
        type=RANGES["box"],
        nargs=4,
        metavar=("x1", "y1", "x2", "y2"),
        help="part of it, in its pixels",
    )
    querying.add_argument("--top", type=RANGES["top"], default=TOP, help="how many to find")
    querying.add_argument("--json", type=arguments.path, help="file to write the matches to")
    querying.add_argument(
        "--html", type=arguments.path, help="page to write, with pictures and what attention saw"
    )
    querying.add_argument(
        "--weights-dir", type=arguments.path, default=OWN_WEIGHTS_DIR, help="folder of the weight files"
    )
    querying.add_argument("--device", default=arguments.DEVICE, help="auto, cpu, cuda, or one GPU as cuda:1")

    for command in (indexing, querying):
        command.add_argument(
            "--index", type=arguments.path, default=SEARCH_INDEX, help="the index's own folder"
        )
    options = vars(parser.parse_args(words))
    {"index": run_index, "query": run_query}[options.pop("command")](options)


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_command(command_line))
