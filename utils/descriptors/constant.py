"""A check that a network does not give all images the same descriptor.

Very large weights have this effect: they saturate the network, so that its output does not depend on its
input.
"""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F

from utils.descriptors.rows import Rows, row_blocks
from utils.errors import UserError
from utils.images.loading import InputImage, load_pixels

MIN_IMAGES = 3
"""Minimum number of images for an error; two images are often equal."""
ROUNDING_ERROR = 1e-6
"""Maximum difference between equal values of descriptors."""

COMPARED_IMAGES = 100
"""Maximum number of images whose pixels are compared."""
COMPARED_SIDE = 256
"""Longer side in pixels of the images that are compared."""
CELLS = 8
"""The number of rows and columns of cells; the mean grey level of each cell is compared."""
VISIBLE_DIFFERENCE = 16.0
"""Minimum difference of grey levels, in 0..255, between images that look different."""


def check_not_constant(rows: Rows, images: Sequence[InputImage]) -> None:
    """Check that images that look different do not all have the same descriptor.

    Copies of an image, also with other compression, and blank pages have equal descriptors. If all
    descriptors are equal, the pixels of the images are compared.

    Args:
        rows: (N, D), the descriptors of all images.
        images: the N images, which must be readable.

    Raises:
        UserError: there are at least three images, all have the same descriptor, and two look different.
    """
    if len(images) >= MIN_IMAGES and _all_equal(rows) and _look_different(images[:COMPARED_IMAGES]):
        raise UserError(
            f"the network gives all {len(images)} images the same descriptor (first: {images[0].path}): "
            "check its weights"
        )


def _all_equal(rows: Rows) -> bool:
    """Return True if all rows are equal up to rounding errors."""
    first = rows[:1]
    return all(bool((np.abs(block - first) <= ROUNDING_ERROR).all()) for _, block in row_blocks(rows))


def _look_different(images: Sequence[InputImage]) -> bool:
    """Return True if an image differs from the first one in more than size, brightness and noise."""
    first = _cell_levels(images[0])
    return any(bool((np.abs(_cell_levels(image) - first) > VISIBLE_DIFFERENCE).any()) for image in images[1:])


def _cell_levels(image: InputImage) -> np.ndarray:
    """Return the mean grey levels of 8 x 8 cells of an image, minus the mean of the image."""
    grey = load_pixels(image, COMPARED_SIDE).float().mean(2)
    cells = F.adaptive_avg_pool2d(grey[None, None], CELLS)[0, 0].numpy()
    return cells - cells.mean()
