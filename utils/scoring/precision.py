"""Precision around each positive of a ranking, the basis of curves and average precisions."""

import numpy as np


def precision_around(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the precision just before and just after each positive.

    Recall does not rise between positives, so these values are all corners of the precision-recall curve.

    Args:
        ranks: (K,) ranks of the positives in the ranking without junk, from 0, rising.

    Returns:
        Precision before and after each positive, both (K,) float64. It is 1 before the first image.
    """
    retrieved = np.arange(len(ranks))
    before = np.divide(retrieved, ranks, out=np.ones(len(ranks)), where=ranks > 0)
    return before, (retrieved + 1) / (ranks + 1)
