"""Bilinear resize of 8-bit colour images in OpenCV's integer arithmetic, equal in every value.

Weights are multiples of 1/2048. The pass along x is an exact integer r; the pass along y uses r >> 4 and
drops the lower 16 bits of each product. Along x both neighbours of a position outside the image are its
border pixel. Along y they are too, but with both weights, as OpenCV has it.

Everything is vectorised on blocks of rows that fit the caches, and only the rows that are used are read.
r >> 4 is computed in 16 bits: with d = p[i + 1] - p[i] and the weight b = 16 b1 + b0 of p[i + 1],
(2048 p[i] + b d) >> 4 = 128 p[i] + b1 d + (b0 d >> 4), where no result needs more.
"""

from typing import NamedTuple

import numpy as np
import torch

ONE = 2048
"""A weight of 1."""

BLOCK = 16
"""Output rows computed together."""


class Taps(NamedTuple):
    """The two source pixels of each output pixel along one axis, and their weights in 1/2048."""

    first: np.ndarray
    second: np.ndarray
    first_weight: np.ndarray
    second_weight: np.ndarray


def bilinear_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image as `cv2.resize` does with INTER_LINEAR.

    Args:
        pixels: (H, W, 3) uint8.
        height: height of the result in pixels, at least 1.
        width: its width in pixels, at least 1.

    Returns:
        (height, width, 3) uint8.
    """
    out = np.empty((height, 3 * width), np.uint8)  # first of all: it may be too large for the memory
    source = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    x_pass = _HorizontalPass(pixels.shape[1], width)
    y = taps(len(pixels), height)
    products = torch.empty(2, BLOCK, 4 * width, dtype=torch.int32)
    weights = torch.from_numpy(np.stack([y.first_weight, y.second_weight]).astype(np.int32))[..., None]
    packed = np.empty((BLOCK, 3 * width + 1), np.int16)
    for start in range(0, height, BLOCK):
        block = slice(start, start + BLOCK)
        first, second = y.first[block], y.second[block]
        rows = np.union1d(first, second)
        interpolated = x_pass(source[rows])
        count = len(first)
        product = products[:, :count]
        for side, used in enumerate((first, second)):
            numbers = torch.from_numpy(np.searchsorted(rows, used))
            torch.index_select(interpolated, 0, numbers, out=product[side])
        product.mul_(weights[:, block])
        values = product.numpy()
        values >>= 16
        total = values[0]
        total += values[1]
        total += 2
        total >>= 2
        # Each pixel of four 16-bit values is written over the fourth, unused value of the one before.
        pixels_of_three = _overlapping(packed[:count], width)
        pixels_of_three[...] = total.astype(np.int16).view(np.uint64)
        out[block] = packed[:count, :-1]
    return out.reshape(height, width, 3)


def taps(source: int, target: int, clamp_weights: bool = False) -> Taps:
    """Return the source pixels and weights of a resize along one axis.

    Args:
        source: number of source pixels.
        target: number of output pixels.
        clamp_weights: whether a position outside the image has the weights 1 and 0 instead of its own.

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


class _HorizontalPass:
    """Interpolates rows along x; its buffers are kept, for fresh memory costs as much as the arithmetic.

    Args:
        source: width of the rows in pixels.
        target: width of the result.
    """

    def __init__(self, source: int, target: int) -> None:
        self.taps = taps(source, target, clamp_weights=True)
        upper, lower = self.taps.second_weight >> 4, self.taps.second_weight & 15
        self.upper, self.lower = (torch.from_numpy(np.repeat(part, 4)) for part in (upper, lower))
        # The two weights are rounded one by one, so that now and then their sum is one more or less than 1.
        self.excess = self.taps.first_weight + self.taps.second_weight - np.int16(ONE)
        self.inexact = np.flatnonzero(self.excess)
        rows = 2 * BLOCK
        self.wide = np.empty((rows, 3 * source + 1), np.int16)
        self.spread = np.empty((rows, source), np.uint64)
        self.first = np.empty((rows, target), np.uint64)
        self.second = np.empty((rows, target), np.uint64)
        self.low = np.empty((rows, 4 * target), np.int16)
        self.result = torch.empty(rows, 4 * target, dtype=torch.int32)

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        """Return r >> 4 of (n, 3 * source) uint8 rows, n at most 2 * BLOCK.

        Returns:
            (n, 4 * target) int32, of which every fourth value is meaningless; overwritten by the next call.
        """
        count = len(rows)
        wide, spread, first, second, low = (
            buffer[:count] for buffer in (self.wide, self.spread, self.first, self.second, self.low)
        )
        # A pixel of three 16-bit values is moved as one number of 64 bits.
        wide[:, :-1] = rows
        wide[:, -1] = 0
        spread[...] = _overlapping(wide, spread.shape[1])
        np.take(spread, self.taps.first, axis=1, out=first, mode="clip")
        np.take(spread, self.taps.second, axis=1, out=second, mode="clip")
        p, difference = first.view(np.int16), second.view(np.int16)
        difference -= p
        torch.mul(torch.from_numpy(difference), self.lower, out=torch.from_numpy(low))
        if len(self.inexact):
            columns = self.inexact
            low.reshape(count, -1, 4)[:, columns] += (
                self.excess[columns, None] * p.reshape(count, -1, 4)[:, columns]
            )
        low >>= 4
        total = torch.from_numpy(low)
        torch.addcmul(total, torch.from_numpy(difference), self.upper, out=total)
        total.add_(torch.from_numpy(p), alpha=ONE // 16)
        return self.result[:count].copy_(total)


def _overlapping(rows: np.ndarray, width: int) -> np.ndarray:
    """View (n, 3 * width + 1) int16 rows as (n, width) 64-bit numbers that begin at every third value."""
    return np.ndarray((len(rows), width), np.uint64, rows, 0, (rows.strides[0], 3 * rows.itemsize))
