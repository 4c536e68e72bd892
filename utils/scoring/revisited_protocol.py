"""Scores of the revisited Oxford and Paris protocols: mAP and mP@k for easy, medium and hard.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018, section
3.3, and its published evaluation code. The average precision is defined as for Oxford, but in float64.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from utils.data.oxford_paris import Query
from utils.scoring.metrics import precision_at
from utils.scoring.precision import precision_around
from utils.scoring.queries import Ranks, positive_ranks
from utils.scoring.scores import ProtocolScores

KAPPAS = (1, 5, 10)
"""Values of k for mean precision at k."""


def score_protocols(
    protocols: Mapping[str, Sequence[Query]], ranks: Sequence[Ranks]
) -> dict[str, ProtocolScores]:
    """Return the scores of rankings per protocol.

    An image that is both positive and junk is junk, but still counts as a positive in recall, as for Oxford.
    The published labels have no such images.

    Args:
        protocols: queries with the labels of the protocol, in the same order, per protocol name.
        ranks: ranks of the labelled images of all protocols, per query.

    Returns:
        Scores per protocol name.
    """
    scores = {}
    for protocol, queries in protocols.items():
        averages: dict[str, float] = {}
        precisions: dict[int, dict[str, float]] = {k: {} for k in KAPPAS}
        for query, of_query in zip(queries, ranks, strict=True):
            retrieved, positives = positive_ranks(query, of_query), len(query.good | query.ok)
            averages[query.name] = average_precision(retrieved, positives)
            for k in KAPPAS:
                precisions[k][query.name] = precision_at(k, retrieved, positives)
        scores[protocol] = ProtocolScores(averages, precisions)
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
