"""Confidence intervals of score differences by the paired bootstrap over queries."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
"""Confidence level of the intervals."""


class Difference(NamedTuple):
    """A mean difference and its confidence interval at level CONFIDENCE."""

    mean: float
    low: float
    high: float


def paired_bootstrap(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Difference:
    """Return the mean of second - first over queries and its confidence interval.

    The two scores of a query are resampled together, because hard queries are hard for both methods. The
    interval is the percentile interval: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    chapter 13. Queries with NaN as one of their scores are left out.

    Args:
        first: (Q,) scores of one method.
        second: (Q,) scores of the other method, for the same queries.
        seed: random seed of the resampling.

    Returns:
        The mean and the interval; all NaN if no query is left.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    differences = differences[~np.isnan(differences)]
    count = len(differences)
    if count == 0:
        return Difference(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    # The mean of a resample depends only on how often each query is drawn.
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.quantile(drawn @ differences / count, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(differences.mean()), float(low), float(high))
