"""Scores of several protocols, as of revisited Oxford and Paris: mAP and metrics for easy, medium and hard.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018, section
3.3, and its published evaluation code. The average precision is defined as for Oxford, but in float64.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from utils.data.retrieval_dataset import Query
from utils.scoring.metrics import score_metrics
from utils.scoring.precision import precision_around
from utils.scoring.queries import Ranks, score_queries
from utils.scoring.scores import ProtocolScores


def score_protocols(
    protocols: Mapping[str, Sequence[Query]], ranks: Mapping[str, Ranks], metrics: Sequence[str]
) -> dict[str, ProtocolScores]:
    """Return the scores of rankings per protocol.

    An image that is both positive and junk is junk, but still counts as a positive in recall, as for Oxford.
    The published labels have no such images.

    Args:
        protocols: queries with the labels of the protocol, per protocol name.
        ranks: ranks of the labelled images of all protocols, per query name.
        metrics: names of metrics beside the average precision.

    Returns:
        Scores per protocol name.
    """
    scores = {}
    for protocol, queries in protocols.items():
        of_queries = [ranks[query.name] for query in queries]
        averages = score_queries(queries, of_queries, average_precision)
        scores[protocol] = ProtocolScores(averages, score_metrics(queries, of_queries, metrics))
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
