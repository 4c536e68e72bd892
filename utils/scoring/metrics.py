"""Scores of the first k images of each ranking: mAP@k, recall@k and mP@k.

Each one is computed from the ranks of a query's positives, after junk images are removed from its ranking.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from utils.data.retrieval_dataset import Query
from utils.scoring.queries import Ranks, positive_ranks

LARGEST_K = 10**6
"""Largest number of first images."""


def average_precision_at(k: int, ranks: np.ndarray, positives: int) -> float:
    """Return the average precision of the first k images, as defined for Google Landmarks v2.

    It is the sum of the precisions after each positive among the first k images, divided by the largest
    number of positives there, min(R, k): Weyand et al., "Google Landmarks Dataset v2", CVPR 2020.

    Args:
        k: number of first images.
        ranks: (K,) ranks of the positives in the ranking without junk, from 0, rising.
        positives: R, the number of all positives.

    Returns:
        0..1; NaN if there are no positives.
    """
    if positives == 0:
        return float("nan")
    first = ranks[: np.searchsorted(ranks, k)]
    return float(np.sum(np.arange(1, len(first) + 1) / (first + 1)) / min(positives, k))


def recall_at(k: int, ranks: np.ndarray, positives: int) -> float:
    """Return the share of a query's positives that are among the first k images.

    Args:
        k: number of first images.
        ranks: (K,) ranks of the positives in the ranking without junk, from 0, rising.
        positives: number of all positives.

    Returns:
        0..1; NaN if there are no positives.
    """
    return float(np.searchsorted(ranks, k)) / positives if positives else float("nan")


def precision_at(k: int, ranks: np.ndarray, positives: int) -> float:
    """Return the share of positives among the first k images, as defined for revisited Oxford and Paris.

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
    if len(ranks) == positives:
        k = min(k, int(ranks[-1]) + 1)
    return float(np.searchsorted(ranks, k)) / k


METRICS: Mapping[str, Callable[[int, np.ndarray, int], float]] = {
    "mAP": average_precision_at,
    "recall": recall_at,
    "mP": precision_at,
}
"""Score of a query by the name of its mean over queries."""


class MetricNames:
    """Valid names of metrics, such as mAP@100."""

    _pattern = re.compile(f"({'|'.join(METRICS)})@([1-9][0-9]{{0,{len(str(LARGEST_K)) - 1}}})")

    def __contains__(self, name: str) -> bool:
        """Return whether a name is that of a metric with a valid k."""
        match = self._pattern.fullmatch(name)
        return match is not None and int(match[2]) <= LARGEST_K

    def __str__(self) -> str:
        return f"of the form {', '.join(f'{kind}@k' for kind in METRICS)} with k from 1 to {LARGEST_K}"


def score_metrics(
    queries: Sequence[Query], ranks: Sequence[Ranks], metrics: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return the score of each query by each metric.

    Args:
        queries: queries with labels.
        ranks: ranks of the labelled images, per query.
        metrics: names of metrics, as in `MetricNames`.

    Returns:
        0..1 per metric, then per query name; NaN for a query without positives.
    """
    retrieved = [positive_ranks(query, of_query) for query, of_query in zip(queries, ranks, strict=True)]
    scores = {}
    for metric in metrics:
        kind, k = metric.split("@")
        scores[metric] = {
            query.name: METRICS[kind](int(k), of_query, len(query.good | query.ok))
            for query, of_query in zip(queries, retrieved, strict=True)
        }
    return scores
