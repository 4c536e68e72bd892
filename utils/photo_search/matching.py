"""Search for the images of an index that are most similar to images."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.prepared_network import prepared_network
from utils.descriptors.settings import descriptor_settings
from utils.device import choose_device
from utils.figures.result_page import BEGIN
from utils.figures.search_page import write_search_page
from utils.files.outputs import check_output_file
from utils.image_index.image_index import ImageIndex, Match, QueryMatches
from utils.image_index.milvus_index import MilvusIndex
from utils.images.loading import InputImage, check_box
from utils.options.options_class import declared_options, make
from utils.options.saved_options import from_json
from utils.photo_search.excluding import excluder, without_excluded
from utils.photo_search.options import ROUNDING, DescribeOptions, MatchOptions, ServeOptions
from utils.photo_search.queries import describe_queries
from utils.photo_search.reranking import QueryReranking
from utils.saved_settings import check_same_settings
from utils.search.reranking.registry import check_rerankers

log = logging.getLogger(__name__)

SAME_WEIGHTS = "give the weights that it was made with by --weights-dir and --backbone-weights"


class Nearest(NamedTuple):
    """The images of an index that are most similar to a query."""

    part: ImageIndex
    """The index, or the part of it that has these images."""
    pairs: list[tuple[int, float]]
    """Index of each image in the part, and its similarity, in the order of the ranks."""
    query_row: int | None
    """Index of the query image in the part; None if it is not indexed or has a box."""


def find_each(
    images: Sequence[InputImage], options: MatchOptions, index: ImageIndex | MilvusIndex
) -> list[QueryMatches]:
    """Find the most similar images of an index for each of some images, and write a page if --html is given.

    Args:
        images: the queries. An unreadable one is left out, with a note.
        options: options of the search.
        index: the index.

    Returns:
        The readable queries with their matches.

    Raises:
        UserError: the index was made with other weights, no query is readable, the box is invalid, or the
            page cannot be written.
    """
    if options.html is not None:
        check_output_file(options.html, BEGIN.encode())
    described = indexed_with(index, options)
    for image in images:
        check_box(image, described.longer_side)
    settings = checked_settings(index, described)
    device = choose_device(options.device)

    def network() -> RetrievalNetwork:
        return prepared_network(described, settings, device)

    check_rerankers(options)
    queries, descriptors = query_descriptors(images, index, described.longer_side, network)
    nearest = find_nearest(queries, descriptors, options, index)
    reranking = None
    if options.rerank:
        reranking = QueryReranking(options, queries, network, described.longer_side)
        nearest = [
            one._replace(pairs=reranking.order(number, descriptor, *one))
            for number, (descriptor, one) in enumerate(zip(descriptors, nearest, strict=True))
        ]
    nearest = [one._replace(pairs=similar_enough(one.pairs, options)) for one in nearest]
    note_changed(nearest)
    results = [QueryMatches(query, matches_of(one)) for query, one in zip(queries, nearest, strict=True)]
    if options.html is not None:
        write_results(options.html, results, network(), index, reranking)
    return results


def write_results(
    path: Path,
    results: Sequence[QueryMatches],
    network: RetrievalNetwork,
    index: ImageIndex | MilvusIndex,
    reranking: QueryReranking | None,
) -> None:
    """Write the page of the matches, with what a re-ranking matched if it can show it.

    Raises:
        UserError: a query has become unreadable, or the page cannot be written.
    """
    if reranking is None or reranking.legend is None:
        write_search_page(path, results, network, index)
    else:
        write_search_page(path, results, network, index, reranking.evidence, reranking.legend)


def query_descriptors(
    images: Sequence[InputImage],
    index: ImageIndex | MilvusIndex,
    longer_side: int,
    network: Callable[[], RetrievalNetwork],
) -> tuple[list[InputImage], np.ndarray]:
    """Return the readable ones of some images and their descriptors, (Q, D) float32.

    Descriptors of indexed images are read from the index. If all are indexed, the network is not loaded.

    Args:
        images: the images.
        index: the index.
        longer_side: S, the longer side of the resized images, in pixels.
        network: loads the network.

    Raises:
        UserError: no image is readable.
    """
    part = index if isinstance(index, ImageIndex) else index.with_images(images)
    rows = {position: row for position, row in enumerate(query_rows(part, images)) if row is not None}
    descriptors: dict[int, np.ndarray] = {}
    if rows:
        descriptors = dict(zip(rows, part.rows[np.array(list(rows.values()))], strict=True))
    pending = [position for position in range(len(images)) if position not in rows]
    if pending:
        given = [images[position] for position in pending]
        computed = describe_queries(network(), given, longer_side, only=not rows)
        descriptors |= {pending[position]: row for position, row in computed.items()}
    order = sorted(descriptors)
    return [images[position] for position in order], np.stack([descriptors[position] for position in order])


def find_nearest(
    queries: Sequence[InputImage],
    descriptors: np.ndarray,
    options: MatchOptions,
    index: ImageIndex | MilvusIndex,
) -> list[Nearest]:
    """Return the most similar images of each query.

    Args:
        queries: the Q images.
        descriptors: (Q, D).
        options: options of the search.
        index: the index.

    Raises:
        UserError: Milvus does not answer, or FAISS is not installed, which an approximate index needs.
    """
    count = max(options.top, options.rerank + 1)  # the query image itself is not re-ranked
    if isinstance(index, ImageIndex):
        part = without_excluded(index, options.exclude)
        exact = options.exact or bool(options.exclude)
        rows = query_rows(part, queries)
        nearest = part.nearest_each(descriptors, count, rows, exact)
        return [Nearest(part, *one) for one in zip(nearest, rows, strict=True)]
    results = []
    is_excluded = excluder(options.exclude)
    for query, descriptor in zip(queries, descriptors, strict=True):
        part = index.nearest(descriptor, count, index.with_images([query]), is_excluded)
        (query_row,) = query_rows(part, [query])
        results.append(Nearest(part, part.nearest(descriptor, count, query_row), query_row))
    return results


def query_rows(part: ImageIndex, images: Iterable[InputImage]) -> list[int | None]:
    """Return the index of each image in an index; None for an image that is not indexed or has a box."""
    return [None if image.box is not None else part.index_of(image) for image in images]


def similar_enough(pairs: Sequence[tuple[int, float]], options: MatchOptions) -> list[tuple[int, float]]:
    """Return the first images of at least the similarity of the options, as many as they ask for."""
    least = -np.inf if options.min_similarity is None else options.min_similarity - ROUNDING
    return [pair for pair in pairs if pair[1] >= least][: options.top]


def matches_of(nearest: Nearest) -> list[Match]:
    """Return the images of a search as matches."""
    return [
        Match(rank, similarity, nearest.part.path(row))
        for rank, (row, similarity) in enumerate(nearest.pairs, start=1)
    ]


def note_changed(nearest: Iterable[Nearest]) -> None:
    """Log the number of images that were deleted or changed after indexing."""
    changed: dict[Path, bool] = {}
    for part, pairs, _ in nearest:
        for row, _ in pairs:
            if (path := part.path(row)) not in changed:
                changed[path] = part.count_changed([row]) > 0
    if count := sum(changed.values()):
        log.warning("note: %d matches were deleted or changed after indexing: index again", count)


def checked_settings(index: ImageIndex | MilvusIndex, described: DescribeOptions) -> dict[str, object]:
    """Return the settings of descriptors by some options, which must be those of an index.

    Raises:
        UserError: the index was made with other weights, or a file of weights is unreadable.
    """
    settings = descriptor_settings(described, [described.pooling])
    check_same_settings(index.location, index.settings, settings, SAME_WEIGHTS)
    return settings


def indexed_with(index: ImageIndex | MilvusIndex, options: MatchOptions | ServeOptions) -> DescribeOptions:
    """Return the options that an index was made with. An index stores only the options that matter to it.

    Raises:
        UserError: a setting of the index is invalid.
    """
    names = {one.name for one in declared_options(DescribeOptions)} & index.settings.keys()
    saved = from_json(DescribeOptions, {name: index.settings[name] for name in names}, str(index.location))
    given = {name: getattr(options, name) for name in ("weights_dir", "backbone_weights", "device")}
    return make(DescribeOptions, saved | given)
