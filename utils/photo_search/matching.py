"""Search for the images of an index that are most similar to an image."""

import logging

import numpy as np

from utils.descriptors.describe import describe as describe_images
from utils.descriptors.prepared_network import prepared_network
from utils.descriptors.settings import descriptor_settings
from utils.device import choose_device
from utils.figures.result_page import BEGIN
from utils.figures.search_page import write_search_page
from utils.files.outputs import check_output_file
from utils.images.batches import Loading
from utils.images.loading import InputImage, check_box
from utils.options.options_class import declared_options, make
from utils.options.saved_options import from_json
from utils.photo_search.options import DescribeOptions, QueryOptions, ServeOptions
from utils.processes import Processes
from utils.saved_settings import check_same_settings
from utils.search.image_index import ImageIndex, Match
from utils.search.milvus_index import MilvusIndex

log = logging.getLogger(__name__)


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
    settings = checked_settings(index, described)
    device = choose_device(options.device)
    part = index if isinstance(index, ImageIndex) else index.with_image(query)
    itself = None if options.box is not None else part.index_of(query)
    # An indexed image has a descriptor: without a page of heat maps, the network is not loaded.
    network = None
    if itself is None or options.html is not None:
        network = prepared_network(described, settings, device)
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


def checked_settings(index: ImageIndex | MilvusIndex, described: DescribeOptions) -> dict[str, object]:
    """Return the settings of descriptors by some options, which must be those of an index.

    Raises:
        UserError: the index was made with other weights, or a file of weights is unreadable.
    """
    settings = descriptor_settings(described, [described.pooling])
    check_same_settings(index.location, index.settings, settings)
    return settings


def indexed_with(index: ImageIndex | MilvusIndex, options: QueryOptions | ServeOptions) -> DescribeOptions:
    """Return the options that an index was made with. An index stores only the options that matter to it.

    Raises:
        UserError: a setting of the index is invalid.
    """
    names = {one.name for one in declared_options(DescribeOptions)} & index.settings.keys()
    saved = from_json(DescribeOptions, {name: index.settings[name] for name in names}, str(index.location))
    given = {name: getattr(options, name) for name in ("weights_dir", "backbone_weights", "device")}
    return make(DescribeOptions, saved | given)
