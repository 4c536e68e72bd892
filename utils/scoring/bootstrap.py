"""Whether one way of searching is better than another, or was lucky with these queries."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


class Difference(NamedTuple):
    """Mean difference and the interval that holds it with the confidence CONFIDENCE."""

    mean: float
    low: float
    high: float


def paired_bootstrap(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Difference:
    """Mean of second - first over queries, and its interval by resampling the queries.

    Each query's two scores stay together, since hard queries are hard for both. The interval is that of
    percentiles: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Of queries whose
    score is undefined in either, NaN, nothing is known of a difference: they are left out.

    Args:
        first: (Q,) scores of one way, by query.
        second: (Q,) scores of the other, in the same order.
        seed: of the resampling.

    Returns:
        NaN throughout if no query is left.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    differences = differences[~np.isnan(differences)]
    count = len(differences)
    if count == 0:
        return Difference(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    # How often each query is drawn is all that its mean depends on.
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.quantile(drawn @ differences / count, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(differences.mean()), float(low), float(high))
