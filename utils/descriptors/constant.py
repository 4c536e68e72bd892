"""The check that a network does not give every image the same descriptor.

Weights of huge values do: they saturate the network, whose output no longer depends on its input.
"""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F

from utils.descriptors.rows import Rows, row_blocks
from utils.errors import UserError
from utils.images.loading import InputImage, load_pixels

FEWEST = 3
"""Number of images from which on equal descriptors are an error; two may well be equal."""
LARGEST_DIFFERENCE = 1e-6
"""Difference between values of descriptors that counts as rounding."""

COMPARED = 100
"""Number of images, the first ones, whose pixels are compared."""
SIDE = 256
"""Longer side in pixels that they are resized to."""
CELLS = 8
"""Cells per row and column in which the mean grey levels are compared."""
VISIBLE = 16.0
"""Difference between grey levels, of 0..255, above which two images show different things."""


def check_not_constant(rows: Rows, images: Sequence[InputImage]) -> None:
    """Check that images that differ do not all have the same descriptor.

    Copies of an image rightly have one descriptor, however their files are compressed, and so do blank pages.
    Pixels are therefore compared, and only where all descriptors are equal.

    Args:
        rows: (N, D), the descriptors of all images.
        images: the N images, all of them readable.

    Raises:
        UserError: there are at least three images, all have the same descriptor, and two look different.
    """
    if len(images) >= FEWEST and _all_equal(rows) and _look_different(images[:COMPARED]):
        raise UserError(
            f"the network gives all {len(images)} images the same descriptor, from {images[0].path} on: "
            "are the weights whole?"
        )


def _all_equal(rows: Rows) -> bool:
    """Return whether all rows are equal up to rounding; rows that differ are met early."""
    first = rows[:1]
    return all(bool((np.abs(block - first) <= LARGEST_DIFFERENCE).all()) for _, block in row_blocks(rows))


def _look_different(images: Sequence[InputImage]) -> bool:
    """Return whether two images differ in more than size, brightness and noise."""
    first = _relief(images[0])
    return any(bool((np.abs(_relief(image) - first) > VISIBLE).any()) for image in images[1:])


def _relief(image: InputImage) -> np.ndarray:
    """Return the mean grey levels of an image in 8 x 8 cells, less their mean."""
    grey = load_pixels(image, SIDE).float().mean(2)
    cells = F.adaptive_avg_pool2d(grey[None, None], CELLS)[0, 0].numpy()
    return cells - cells.mean()
