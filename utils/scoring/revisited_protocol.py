"""Scores of the revisited Oxford and Paris protocols: mAP and mP@k for easy, medium and hard.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018, section
3.3, and the evaluation published with it. Its average precision is Oxford's, in float64.
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
"""The k of mean precision at k."""


def score_protocols(
    protocols: Mapping[str, Sequence[Query]], names: Sequence[str], similarities: np.ndarray
) -> dict[str, ProtocolScores]:
    """Scores the rankings by falling similarity, ties in the database's order, under several protocols.

    An image that is a positive and junk counts as junk but still as to be found, as in Oxford's evaluation;
    the published labels have none.

    Args:
        protocols: by name the queries, with that protocol's labels, in the order of the rows.
        names: the database's images, in the order of the columns.
        similarities: (Q, N).

    Returns:
        By protocol name.
    """
    index_of = {name: place for place, name in enumerate(names)}
    by_query = list(zip(*protocols.values(), strict=True))
    with ThreadPoolExecutor() as pool:  # as in score_queries
        scored = list(pool.map(partial(_score_query, index_of), by_query, similarities))
    scores = {}
    for place, (protocol, queries) in enumerate(protocols.items()):
        figures = {query.name: found[place] for query, found in zip(queries, scored, strict=True)}
        scores[protocol] = ProtocolScores(
            {name: average for name, (average, _) in figures.items()},
            {k: {name: at[k] for name, (_, at) in figures.items()} for k in KAPPAS},
        )
    return scores


def average_precision(places: np.ndarray, positives: int) -> float:
    """Area under the precision-recall curve, by trapezoids from recall 0, precision 1.

    Args:
        places: (K,) places of the positives in the ranking without junk, counted from 0, rising.
        positives: how many there are to find.

    Returns:
        0..1; NaN if there is nothing to find.
    """
    if positives == 0:
        return float("nan")
    before, precision = precision_around(places)
    return float(np.sum(before + precision) / (2 * positives))  # float64, unlike VGG's program


def precision_at(k: int, places: np.ndarray, positives: int) -> float:
    """The part of the first k images that are positives.

    Where all positives are among them, only the images up to the last positive count: a query with fewer than
    k positives can reach 1.

    Args:
        k: how many images are looked at.
        places: (K,) places of the positives in the ranking without junk, counted from 0, rising.
        positives: how many there are to find.

    Returns:
        0..1; NaN if there is nothing to find.
    """
    if positives == 0:
        return float("nan")
    if len(places) == 0:
        return 0.0
    k = min(k, int(places[-1]) + 1)
    return float(np.searchsorted(places, k)) / k


def _score_query(
    index_of: Mapping[str, int], protocols: Sequence[Query], similarities: np.ndarray
) -> list[tuple[float, dict[int, float]]]:
    """Average precision and precision at each k of one query, for each of its labels of several protocols."""
    labelled = frozenset[str]().union(*(query.good | query.ok | query.junk for query in protocols))
    ranks = ranks_of_names(index_of, labelled, similarities)  # once, since it is most of the work
    figures = []
    for query in protocols:
        places, positives = positive_ranks(query, ranks), len(query.good | query.ok)
        at = {k: precision_at(k, places, positives) for k in KAPPAS}
        figures.append((average_precision(places, positives), at))
    return figures
