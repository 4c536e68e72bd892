"""Figures of an evaluation, per query: first results, precision over recall, attention."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.retrieval_network import RetrievalNetwork
from utils.data.oxford_paris import Query, RetrievalDataset
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
from utils.scoring.queries import positive_ranks, ranks_of_names
from utils.search.similarity import first_indices

Curve = tuple[np.ndarray, np.ndarray]
"""Recall and precision."""


def query_curves(data: RetrievalDataset, names: Sequence[str], similar: np.ndarray) -> dict[str, Curve]:
    """Precision over recall of each query that has positives, by its name.

    Args:
        data: with its queries; of a revisited set their labels are those of the Medium protocol.
        names: the database's images, in the order of the columns.
        similar: (Q, N) similarities.
    """
    index_of = {name: index for index, name in enumerate(names)}
    curves = {}
    for query, row in zip(data.queries, similar, strict=True):
        if positives := query.good | query.ok:
            ranks = ranks_of_names(index_of, positives | query.junk, row)
            curves[query.name] = precision_recall(positive_ranks(query, ranks), len(positives))
    return curves


def draw_figures(
    folder: Path,
    data: RetrievalDataset,
    names: Sequence[str],
    similar: np.ndarray,
    curves: Mapping[str, Mapping[str, Curve]],
    network: RetrievalNetwork,
    longer_side: int,
) -> None:
    """Draws for each query its first results, its curves and, where the network has any, its attention.

    Args:
        folder: for the figures, made where it is missing.
        data: with its queries.
        names: the database's images, in the order of the columns.
        similar: (Q, N) similarities, by which the results rank.
        curves: by title, then by query.
        network: that described the queries.
        longer_side: S, in pixels.

    Raises:
        UserError: an image cannot be decoded any more, or a figure cannot be written.
    """
    has_attention = network.attention_pooling is not None
    for name in (RESULT_FIGURES, CURVE_FIGURES, *([ATTENTION_FIGURES] if has_attention else [])):
        make_folder(folder / name)
    indices = first_indices(similar, RESULTS_SHOWN)
    bar = tqdm(data.queries, "figures", unit="query", disable=None)
    for query, image, row, first in zip(bar, data.query_inputs(), similar, indices, strict=True):
        file_name = query.name + FIGURE_SUFFIX
        results = [
            Result(read_image(data.images[names[index]]), kind_of(names[index], query), float(row[index]))
            for index in first
        ]
        draw_strip(folder / RESULT_FIGURES / file_name, read_image(image.path), query.box, results)
        of_query = {
            title: by_query[query.name] for title, by_query in curves.items() if query.name in by_query
        }
        if of_query:
            draw_precision_recall(folder / CURVE_FIGURES / file_name, of_query)
        if has_attention:
            heat = image_attention(network, image, longer_side)
            pixels = load_pixels(image, longer_side).numpy()
            draw_attention(folder / ATTENTION_FIGURES / file_name, pixels, heat)


def kind_of(name: str, query: Query) -> Kind:
    """Return the label of an image for a query; junk wins over positive."""
    return "junk" if name in query.junk else "positive" if name in query.good | query.ok else "wrong"
