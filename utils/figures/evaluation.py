"""Figures of an evaluation, per query: first results, precision over recall, and attention."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.retrieval_network import RetrievalNetwork
from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.figures.drawing import (
    RESULTS_SHOWN,
    Kind,
    Result,
    draw_attention,
    draw_precision_recall,
    draw_strip,
    precision_recall,
)
from utils.figures.heat_map import image_attention
from utils.file_names import ATTENTION_FIGURES, CURVE_FIGURES, FIGURE_SUFFIX, RESULT_FIGURES
from utils.files.writing import make_folder
from utils.images.loading import load_pixels, read_image
from utils.scoring.queries import Ranks, positive_ranks
from utils.search.exact import Found

Curve = tuple[np.ndarray, np.ndarray]
"""Recall and precision."""


def query_curves(data: RetrievalDataset, ranks: Sequence[Ranks]) -> dict[str, Curve]:
    """Return precision over recall by name of query, for each query that has positives.

    Args:
        data: the data set. The queries of a revisited set have the labels of the Medium protocol.
        ranks: ranks of the labelled images, per query.
    """
    curves = {}
    for query, of_query in zip(data.queries, ranks, strict=True):
        if positives := query.good | query.ok:
            curves[query.name] = precision_recall(positive_ranks(query, of_query), len(positives))
    return curves


def draw_figures(
    folder: Path,
    data: RetrievalDataset,
    names: Sequence[str],
    found: Found,
    curves: Mapping[str, Mapping[str, Curve]],
    network: RetrievalNetwork,
    longer_side: int,
) -> None:
    """Draw the first results of each query, its curves and, for an attention head, its attention.

    Args:
        folder: folder of the figures, created if it does not exist.
        data: the data set.
        names: names of the database images.
        found: first images of each query, at least RESULTS_SHOWN unless there are fewer.
        curves: curves of precision over recall by title and query.
        network: network that described the queries.
        longer_side: S, in pixels.

    Raises:
        UserError: an image has become unreadable, or a figure cannot be written.
    """
    has_attention = network.attention_pooling is not None
    for name in (RESULT_FIGURES, CURVE_FIGURES, *([ATTENTION_FIGURES] if has_attention else [])):
        make_folder(folder / name)
    bar = tqdm(data.queries, "figures", unit="query", disable=None)
    results_of_queries = zip(found.indices, found.similarities, strict=True)
    for query, image, (indices, similarities) in zip(
        bar, data.query_inputs(), results_of_queries, strict=True
    ):
        file_name = query.name + FIGURE_SUFFIX
        results = [
            Result(read_image(data.images[names[index]]), kind_of(names[index], query), float(similarity))
            for index, similarity in zip(indices[:RESULTS_SHOWN], similarities, strict=False)
        ]
        draw_strip(folder / RESULT_FIGURES / file_name, read_image(image.path), query.box, results)
        curves_of_query = {
            title: by_query[query.name] for title, by_query in curves.items() if query.name in by_query
        }
        if curves_of_query:
            draw_precision_recall(folder / CURVE_FIGURES / file_name, curves_of_query)
        if has_attention:
            heat = image_attention(network, image, longer_side)
            pixels = load_pixels(image, longer_side).numpy()
            draw_attention(folder / ATTENTION_FIGURES / file_name, pixels, heat)


def kind_of(name: str, query: Query) -> Kind:
    """Return the label of an image for a query. An image that is junk and positive counts as junk."""
    return "junk" if name in query.junk else "positive" if name in query.good | query.ok else "wrong"
