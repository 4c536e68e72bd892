"""Bilinear resize of 8-bit colour images, with exactly the values of OpenCV.

It uses the integer arithmetic of OpenCV. Weights are multiples of 1/2048. The pass along x gives an exact
integer r; the pass along y uses r >> 4 and drops the lower 16 bits of each product. Outside the image, both
neighbours of a position are the border pixel: along x with the weights 1 and 0, along y with their
interpolation weights.
"""

from itertools import count
from typing import NamedTuple

import numpy as np

ONE = 2048
"""The integer that represents a weight of 1."""

INTERPRETED_IMAGES = 8
"""Images of a process that NumPy resizes: loading the compiled code takes as long as some twenty images."""

ROWS = 32
"""Rows of the result that NumPy computes at a time, which fit the caches."""

_resized = count()
"""The number of images that this process has resized."""


class Taps(NamedTuple):
    """The two source pixels of each output pixel along one axis, and their weights in 1/2048."""

    first: np.ndarray
    second: np.ndarray
    first_weight: np.ndarray
    second_weight: np.ndarray


def bilinear_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image as `cv2.resize` does with INTER_LINEAR.

    The first images of a process are resized by NumPy, all further ones by compiled code, with equal values.

    Args:
        pixels: (H, W, 3) uint8.
        height: the height of the result in pixels, at least 1.
        width: the width of the result in pixels, at least 1.

    Returns:
        (height, width, 3) uint8.
    """
    out = np.empty((height, width, 3), np.uint8)  # allocated first, as it may not fit in memory
    x = taps(pixels.shape[1], width, clamp_weights=True)
    y = taps(len(pixels), height)
    if next(_resized) < INTERPRETED_IMAGES:
        interpreted_resize(pixels, x, y, out)
    else:
        compiled_resize(pixels, x, y, out)
    return out


def interpreted_resize(pixels: np.ndarray, x: Taps, y: Taps, out: np.ndarray) -> None:
    """Resize an image with NumPy, which takes ten times as long as compiled code.

    Args:
        pixels: (H, W, 3) uint8.
        x: source pixels and weights along x.
        y: source pixels and weights along y.
        out: (height, width, 3), the result.
    """
    left, right = (weight.astype(np.int32)[:, np.newaxis] for weight in (x.first_weight, x.second_weight))
    for start in range(0, len(out), ROWS):
        part = slice(start, start + ROWS)
        total = np.full(out[part].shape, 2, np.int32)
        for indices, weights in ((y.first, y.first_weight), (y.second, y.second_weight)):
            rows = pixels[indices[part]]
            interpolated = (rows[:, x.first] * left + rows[:, x.second] * right) >> 4
            total += (interpolated * weights[part, np.newaxis, np.newaxis].astype(np.int32)) >> 16
        out[part] = total >> 2


def compiled_resize(pixels: np.ndarray, x: Taps, y: Taps, out: np.ndarray) -> None:
    """Resize an image with compiled code; see `interpreted_resize`."""
    from utils.images.resize_kernel import compiled_resize_rows  # imports Numba, which takes about a second

    size = 3 * out.shape[1]
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    last_row = np.append(rows[-1:], np.zeros((1, 1), np.uint8), axis=1)  # the last word ends one byte later
    neighbours = np.empty((2, size + 1), np.uint8)
    compiled_resize_rows()(
        _words(rows, len(rows) - 1, rows.shape[1]),
        _words(last_row, 1, rows.shape[1] - 2)[0],
        (3 * np.stack([x.first, x.second])).astype(np.uint64),
        np.repeat(np.stack([x.first_weight, x.second_weight]), 3, axis=1),
        np.stack([y.first, y.second]),
        np.stack([y.first_weight, y.second_weight]),
        _words(neighbours, 2, size - 2),
        neighbours,
        np.empty((2, size), np.int16),
        np.empty((2, size), np.int16),
        out.reshape(len(out), size),
    )


def taps(source: int, target: int, clamp_weights: bool = False) -> Taps:
    """Return the source pixels and weights of a resize along one axis.

    Args:
        source: the number of source pixels.
        target: the number of output pixels.
        clamp_weights: use the weights 1 and 0 for positions outside the image.

    Returns:
        Indices, (target,) int64, and weights, (target,) int16.
    """
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    fraction = position - first.astype(np.float32)
    if clamp_weights:
        fraction[(first < 0) | (first >= source - 1)] = 0
    weights = (np.rint(np.float32(ONE) * part).astype(np.int16) for part in (1 - fraction, fraction))
    return Taps(first.clip(0, source - 1), (first + 1).clip(0, source - 1), *weights)


def _words(rows: np.ndarray, count: int, size: int) -> np.ndarray:
    """View contiguous bytes as overlapping four-byte words, one per byte.

    Args:
        rows: (N, bytes) uint8.
        count: the number of rows to view.
        size: the number of words per row.

    Returns:
        (count, size) uint32, not aligned, sharing the memory of `rows`.
    """
    return np.ndarray((count, size), np.uint32, rows, 0, rows.strides)
