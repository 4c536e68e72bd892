"""Smooth random fields for clouds, stains and grain."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: Sequence[int]) -> np.ndarray:
    """Return the sum of random fields, each interpolated from a coarse grid.

    Args:
        rng: the random generator.
        height: the number of rows.
        width: the number of columns.
        cells: the number of random values along the width, per field, coarse fields first. The n-th field has
            the amplitude 1 / n.

    Returns:
        (height, width) float32, of mean 0 and a standard deviation of about 1.
    """
    total = np.zeros((height, width), np.float32)
    for octave, count in enumerate(cells, start=1):
        rows = max(2, round(count * height / width))
        grid = Image.fromarray(rng.normal(0, 1, (rows, count)).astype(np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / octave
    return total
