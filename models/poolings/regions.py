"""R-MAC regions: a multi-scale grid of overlapping square regions of an image.

Tolias, Sicre and Jégou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR
2016, section 3.2. The rounding follows the implementation of the regional attention paper.
"""

import math
from dataclasses import dataclass

import numpy as np

OVERLAP = 0.4
"""Target overlap of neighbouring regions along the longer side; determines the number of extra regions."""

MAX_LEVELS = 30
"""Largest number of levels. At level 30, a square image of 1024 pixels has regions of 66 pixels, which is two
cells at stride 32. Finer levels would repeat the same cells, and the number of regions grows with L cubed."""

MAX_LONGER_SIDE_REGIONS = 7
"""Largest number of regions along the longer side at level 1."""

LARGEST_FLOAT32_AREA = 65535
"""Largest region area, in pixels, whose overlap is computed in float32; larger ones use float64."""


@dataclass(frozen=True)
class RegionLevel:
    """One level of the grid, in pixels: squares of one side with a corner at each pair of `xs` and `ys`."""

    side: int
    xs: tuple[int, ...]
    ys: tuple[int, ...]


def check_levels(levels: int) -> None:
    """Check a number of R-MAC levels.

    Raises:
        ValueError: the number is not from 1 to MAX_LEVELS.
    """
    if not 1 <= levels <= MAX_LEVELS:
        raise ValueError(f"the number of R-MAC levels must be from 1 to {MAX_LEVELS}")


def rmac_levels(height: int, width: int, levels: int) -> list[RegionLevel]:
    """Return the levels of the R-MAC grid of an image.

    Args:
        height: image height H in pixels, at least 1.
        width: image width W in pixels, at least 1.
        levels: number of levels L, 1 to MAX_LEVELS; level l has l × l regions on a square image.

    Returns:
        L levels, from coarse to fine.

    Raises:
        ValueError: a side is less than 1, or the number of levels is not from 1 to MAX_LEVELS.
    """
    if min(height, width) < 1:
        raise ValueError(f"no regions for a {height} x {width} image: each side must be >= 1")
    check_levels(levels)
    shorter = min(height, width)
    extra = _extra_regions(shorter, max(height, width))
    extra_x = extra if width > height else 0
    extra_y = extra if height > width else 0
    grid = []
    for level in range(1, levels + 1):
        side = 2 * shorter // (level + 1)
        xs = _starts(width, side, level + extra_x)
        ys = _starts(height, side, level + extra_y)
        grid.append(RegionLevel(side, xs, ys))
    return grid


def rmac_regions(height: int, width: int, levels: int) -> np.ndarray:
    """Return the R-MAC regions of an image as boxes in pixels.

    Args:
        height: image height H in pixels, at least 1.
        width: image width W in pixels, at least 1.
        levels: number of levels L, 1 to MAX_LEVELS.

    Returns:
        (R, 4) int64, with columns x, y, w, h, sorted by level, then y, then x.

    Raises:
        ValueError: a side is less than 1, or the number of levels is not from 1 to MAX_LEVELS.
    """
    boxes = [
        (x, y, level.side, level.side)
        for level in rmac_levels(height, width, levels)
        for y in level.ys
        for x in level.xs
    ]
    return np.array(boxes, dtype=np.int64)


def _extra_regions(shorter: int, longer: int) -> int:
    """Return the number of additional regions along the longer side with an overlap closest to OVERLAP."""
    # The number type decides ties. The original ran on NumPy 1, which computes an integer with float32 arrays
    # in float32 if the integer fits 16 bits, and in float64 otherwise.
    steps = np.arange(2, MAX_LONGER_SIDE_REGIONS + 1, dtype=np.float32)
    shift = np.float32(longer - shorter) / (steps - np.float32(1))
    area = shorter * shorter
    number = np.float32 if area <= LARGEST_FLOAT32_AREA else np.float64
    overlap = (number(area) - np.float32(shorter) * shift) / number(area)
    return int(np.argmin(np.abs(overlap - number(OVERLAP)))) + 1


def _starts(length: int, side: int, count: int) -> tuple[int, ...]:
    """Return the first pixels of `count` regions of `side` pixels, spread evenly over `length` pixels."""
    half = math.floor(side / 2 - 1)
    step = (length - side) / (count - 1) if count > 1 else 0.0
    starts = (math.floor(half + i * step) - half for i in range(count))
    return tuple(min(start, length - side) for start in starts)
