"""From descriptors to scores: a search, and further ones with expanded queries and by diffusion."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.data.oxford_paris import RetrievalDataset
from utils.descriptors.rows import Rows
from utils.file_names import RANKINGS_FOLDER
from utils.scoring import report
from utils.scoring.compute_ap import compute_ap_by_binary, write_label_files
from utils.scoring.queries import score_queries
from utils.scoring.revisited_protocol import ProtocolScores, for_json, format_protocols, score_protocols
from utils.search.diffusion import diffuse, neighbour_graph, similarities_after
from utils.search.query_expansion import expand_queries
from utils.search.similarity import first_places, rank

PLAIN, EXPANDED, DIFFUSED = "search", "query expansion", "diffusion"
"""The searches, one on the other."""

Scores = dict[str, float] | dict[str, ProtocolScores]
"""Average precision by query; of a revisited set the scores by protocol."""


def searches(
    queries: np.ndarray,
    database: Rows,
    similarities_to: Callable[[np.ndarray], np.ndarray],
    *,
    qe: int,
    alpha: float,
    diffusion: int,
    diffusion_alpha: float,
) -> Iterator[tuple[str, np.ndarray]]:
    """Searches plainly, then with expanded queries, then by diffusion from what that found.

    Args:
        queries: (Q, D).
        database: (N, D).
        similarities_to: the database's (Q, N) similarities to any (Q, D) queries.
        qe: images averaged with the query for its expansion; 0 for none.
        alpha: power of the similarity by which they count.
        diffusion: neighbours of each image in the graph; 0 for no diffusion.
        diffusion_alpha: share of the similarity that goes on at each step.

    Yields:
        The name of a search and its (Q, N) similarities, by which images rank.
    """
    similar = similarities_to(queries)
    yield PLAIN, similar
    if qe:
        first = first_places(similar, qe)
        found = np.isfinite(np.take_along_axis(similar, first, axis=1))
        queries = expand_queries(queries, database, first, alpha, found)
        similar = similarities_to(queries)
        yield EXPANDED, similar
    if diffusion:
        scores = diffuse(neighbour_graph(database, diffusion), similar, alpha=diffusion_alpha)
        yield DIFFUSED, similarities_after(scores, similar)


def named_rankings(
    data: RetrievalDataset, names: Sequence[str], similar: np.ndarray
) -> Iterator[tuple[str, list[str]]]:
    """Each query's name and its ranking as image names, the most similar first."""
    for query, row in zip(data.queries, similar, strict=True):
        yield query.name, [names[place] for place in rank(row[np.newaxis])[0]]


def score(
    data: RetrievalDataset, names: Sequence[str], similar: np.ndarray, eval_binary: Path | None = None
) -> Scores:
    """Scores rankings by falling similarity, here or by a compiled copy of VGG's program.

    Raises:
        UserError: the program cannot be run, or fails.
    """
    if data.protocols:
        return score_protocols(data.protocols, names, similar)
    if eval_binary is None:
        return score_queries(data.queries, names, similar)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report.write_rankings(folder, named_rankings(data, names, similar))
        return {
            query.name: compute_ap_by_binary(
                eval_binary,
                write_label_files(folder, query.name, query.good, query.ok, query.junk),
                report.ranking_file(folder / RANKINGS_FOLDER, query.name),
            )
            for query in data.queries
        }


def average_precisions(scores: Scores) -> dict[str, dict[str, float]]:
    """Average precision by query, by protocol; a set without protocols has one without a name."""
    if all(isinstance(value, ProtocolScores) for value in scores.values()):
        return {protocol: dict(value.average_precisions) for protocol, value in scores.items()}
    return {"": dict(scores)}


def without_positives(scores: Scores) -> list[str]:
    """The queries of which no average precision can be given, with the protocol where there are several."""
    return [
        f"{query} ({protocol})" if protocol else query
        for protocol, precisions in average_precisions(scores).items()
        for query, precision in precisions.items()
        if np.isnan(precision)
    ]


def format_scores(scores: Scores) -> str:
    """What is printed of a search."""
    if "" in average_precisions(scores):
        return report.format_scores(scores)
    return format_protocols(scores)


def for_results(scores: Mapping[str, Scores]) -> dict[str, object]:
    """What results.json holds of the searches, by name; those that are not plain have it in their keys."""
    entries: dict[str, object] = {}
    for search, of_search in scores.items():
        suffix = "" if search == PLAIN else "_" + search.replace(" ", "_")
        if "" in average_precisions(of_search):
            entries[f"mAP{suffix}"] = report.mean_average_precision(of_search)
            entries[f"AP{suffix}"] = of_search
        else:
            entries[f"protocols{suffix}"] = for_json(of_search)
    if "" in average_precisions(scores[PLAIN]) and EXPANDED not in scores:
        entries |= {"mAP_query_expansion": None, "AP_query_expansion": None}
    return entries
