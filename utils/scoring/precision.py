"""The precision around each positive of a ranking, from which curves and average precisions are made."""

import numpy as np


def precision_around(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the precision just before each positive and with it.

    Between two positives recall does not rise: these are all the corners of the precision-recall curve.

    Args:
        indices: (K,) indices of the positives in the ranking without junk, from 0, rising.

    Returns:
        Two (K,) float64; before the first image of the ranking the precision is 1.
    """
    found = np.arange(len(indices))
    before = np.divide(found, indices, out=np.ones(len(indices)), where=indices > 0)
    return before, (found + 1) / (indices + 1)
