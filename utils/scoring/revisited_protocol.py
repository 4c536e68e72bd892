"""Scores of the revisited Oxford and Paris protocols: mAP and mP@k for easy, medium and hard.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018, section
3.3, and its published evaluation code. The average precision is defined as for Oxford, but in float64.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from utils.data.oxford_paris import Query
from utils.scoring.precision import precision_around
from utils.scoring.queries import positive_ranks, ranks_of_names
from utils.scoring.scores import ProtocolScores

KAPPAS = (1, 5, 10)
"""Values of k for mean precision at k."""


def score_protocols(
    protocols: Mapping[str, Sequence[Query]], names: Sequence[str], similarities: np.ndarray
) -> dict[str, ProtocolScores]:
    """Return the scores of rankings by falling similarity, ties in the database's order, per protocol.

    An image that is both positive and junk is junk, but still counts as a positive in recall, as for Oxford.
    The published labels have no such images.

    Args:
        protocols: queries with the labels of the protocol, in the order of the rows, per protocol name.
        names: names of the database images, in the order of the columns.
        similarities: (Q, N).

    Returns:
        Scores per protocol name.
    """
    index_of = {name: index for index, name in enumerate(names)}
    by_query = list(zip(*protocols.values(), strict=True))
    with ThreadPoolExecutor() as pool:  # as in score_queries
        scored = list(pool.map(partial(_score_query, index_of), by_query, similarities))
    scores = {}
    for index, (protocol, queries) in enumerate(protocols.items()):
        figures = {query.name: values[index] for query, values in zip(queries, scored, strict=True)}
        scores[protocol] = ProtocolScores(
            {name: average for name, (average, _) in figures.items()},
            {k: {name: at[k] for name, (_, at) in figures.items()} for k in KAPPAS},
        )
    return scores


def average_precision(ranks: np.ndarray, positives: int) -> float:
    """Return the area under the precision-recall curve, by trapezoids from recall 0 and precision 1.

    Args:
        ranks: (K,) ranks of the positives in the ranking without junk, from 0, rising.
        positives: number of all positives.

    Returns:
        0..1; NaN if there are no positives.
    """
    if positives == 0:
        return float("nan")
    before, precision = precision_around(ranks)
    return float(np.sum(before + precision) / (2 * positives))  # float64, unlike VGG's program


def precision_at(k: int, ranks: np.ndarray, positives: int) -> float:
    """Return the share of positives among the first k images.

    If all positives are among the first k images, only the images up to the last positive count, so that a
    query with fewer than k positives can reach 1.

    Args:
        k: number of first images.
        ranks: (K,) ranks of the positives in the ranking without junk, from 0, rising.
        positives: number of all positives.

    Returns:
        0..1; NaN if there are no positives.
    """
    if positives == 0:
        return float("nan")
    if len(ranks) == 0:
        return 0.0
    k = min(k, int(ranks[-1]) + 1)
    return float(np.searchsorted(ranks, k)) / k


def _score_query(
    index_of: Mapping[str, int], protocols: Sequence[Query], similarities: np.ndarray
) -> list[tuple[float, dict[int, float]]]:
    """Return the average precision and the precision at each k of one query, per protocol."""
    labelled = frozenset[str]().union(*(query.good | query.ok | query.junk for query in protocols))
    ranks = ranks_of_names(index_of, labelled, similarities)  # once for all protocols: most of the work
    figures = []
    for query in protocols:
        retrieved, positives = positive_ranks(query, ranks), len(query.good | query.ok)
        at = {k: precision_at(k, retrieved, positives) for k in KAPPAS}
        figures.append((average_precision(retrieved, positives), at))
    return figures
