"""Compiled loops of the bilinear resize.

Import this module only when needed, since importing Numba takes about a second.

LLVM compiles the loops to vector instructions, as `inspect_asm` shows. Along x, the left and the right
neighbours of all output pixels are first copied to two contiguous rows, four bytes at a time. Their weights
are split into a multiple of 16 and a remainder, and r >> 4 then fits in 16 bits. Along y, a loop of one
statement reduces each product of two 16-bit numbers to its upper half (pmulhw on x86).
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import int16, int32, int64, njit, types, uint8, uint32, uint64

IMAGE = types.Array(uint32, 2, "A", readonly=True, aligned=False)
ROW = types.Array(uint32, 1, "A", readonly=True, aligned=False)
WORDS = types.Array(uint32, 2, "A", aligned=False)
SIGNATURE = types.void(
    IMAGE,
    ROW,
    uint64[:, ::1],
    int16[:, ::1],
    int64[:, ::1],
    int16[:, ::1],
    WORDS,
    uint8[:, ::1],
    int16[:, ::1],
    int16[:, ::1],
    uint8[:, ::1],
)


@cache
def compiled_resize_rows() -> Callable[..., None]:
    """Return `resize_rows` as machine code.

    The code is cached in `__pycache__` or, if that is not writable, in the cache folder of the user. If the
    cache cannot be written or is not valid, each process compiles the code, which takes a few seconds.
    """
    try:
        return njit(SIGNATURE, nogil=True, cache=True)(resize_rows)
    except Exception:  # a full disk, no home folder, or any error of unpickling an invalid cache file
        return njit(SIGNATURE, nogil=True)(resize_rows)


def resize_rows(
    image: np.ndarray,
    last_row: np.ndarray,
    x_offsets: np.ndarray,
    x_weights: np.ndarray,
    y_indices: np.ndarray,
    y_weights: np.ndarray,
    words: np.ndarray,
    neighbours: np.ndarray,
    interpolated: np.ndarray,
    products: np.ndarray,
    out: np.ndarray,
) -> None:
    """Resize an image. Rows interpolated along x are reused for the next output row.

    Args:
        image: (H - 1, 3 W), all rows except the last, as overlapping words: the four bytes from each byte on.
        last_row: (3 W - 2,), the last row in the same form.
        x_offsets: (2, width), byte offsets of the first channel of the two neighbours along x.
        x_weights: (2, 3 width), weights of the neighbours in 1/2048, repeated for each channel.
        y_indices: (2, height), indices of the two source rows.
        y_weights: (2, height), weights of the source rows in 1/2048.
        words: (2, 3 width - 2), a view of `neighbours` as overlapping words.
        neighbours: (2, 3 width + 1), a buffer for the two neighbours along x.
        interpolated: (2, 3 width), a buffer for the two rows interpolated along x.
        products: (2, 3 width), a buffer for the products of these rows with the weights along y.
        out: (height, 3 width), the result.
    """
    upper, lower = interpolated[0], interpolated[1]
    upper_index = lower_index = -1
    for y in range(len(out)):
        if y_indices[0, y] == lower_index:
            upper, lower = lower, upper
            upper_index, lower_index = lower_index, upper_index
        if y_indices[0, y] != upper_index:
            upper_index = y_indices[0, y]
            row = last_row if upper_index == len(image) else image[upper_index]
            _interpolate_along_x(row, x_offsets, x_weights, words, neighbours, upper)
        if y_indices[1, y] != lower_index:
            lower_index = y_indices[1, y]
            row = last_row if lower_index == len(image) else image[lower_index]
            _interpolate_along_x(row, x_offsets, x_weights, words, neighbours, lower)
        _interpolate_along_y(upper, lower, y_weights[0, y], y_weights[1, y], products, out[y])


@njit(nogil=True)
def _interpolate_along_x(
    row: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray,
    words: np.ndarray,
    neighbours: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write r >> 4 of one source row to `out`, (3 width,) int16; for the arguments, see `resize_rows`."""
    for side in range(2):
        for x in range(offsets.shape[1]):
            words[side, 3 * x] = row[offsets[side, x]]  # the next pixel overwrites the fourth byte
    first, second = neighbours[0], neighbours[1]
    first_weight, second_weight = weights[0], weights[1]
    # 16 bits suffice. Both weights are in 0..2048. Their sum is at most 2049, since rounding changes each by
    # at most one half, and the float32 `1 - fraction` has an error of at most 2 ** -14 units. Therefore
    #   low <= (15 + 15) * 255 = 7650,
    #   high <= (2049 // 16) * 255 = 128 * 255 = 32640,
    #   r >> 4 = (16 * high + low) >> 4 = high + (low >> 4) <= 2049 * 255 // 16 = 32655 < 2 ** 15.
    # All terms are non-negative, so no partial sum exceeds these bounds.
    for i in range(len(out)):
        a, b = int32(first[i]), int32(second[i])
        low = int32(int32(first_weight[i] & int16(15)) * a + int32(second_weight[i] & int16(15)) * b)
        high = int32(first_weight[i] >> int16(4)) * a + int32(second_weight[i] >> int16(4)) * b
        out[i] = high + (low >> int32(4))


@njit(nogil=True)
def _interpolate_along_y(
    upper: np.ndarray,
    lower: np.ndarray,
    upper_weight: int,
    lower_weight: int,
    products: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write one output row, (3 width,) uint8, from two rows of r >> 4."""
    # No clipping to 0..255 is needed. Before their lower 16 bits are dropped, the two products add up to at
    # most 2049 * 32655 < 1021 * 2 ** 16; afterwards to at most 1020, and (1020 + 2) >> 2 is 255.
    first, second = products[0], products[1]
    for i in range(len(out)):
        first[i] = int32(int32(upper_weight) * int32(upper[i])) >> 16
    for i in range(len(out)):
        second[i] = int32(int32(lower_weight) * int32(lower[i])) >> 16
    for i in range(len(out)):
        out[i] = int16(first[i] + second[i] + 2) >> 2
