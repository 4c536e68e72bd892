"""Orientation of images of Pillow, as their EXIF data state it."""

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from utils.images.eight_bit_colour import eight_bit_rgb

ORIENTATION_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposes that make an image of each EXIF orientation upright; orientation 1 is upright."""

SIDEWAYS_ORIENTATIONS = (5, 6, 7, 8)
"""EXIF orientations in which height and width are exchanged."""


def upright_rgb(image: Image.Image) -> np.ndarray:
    """Return an image of Pillow as (H, W, 3) uint8, RGB.

    `eight_bit_rgb` converts the mode, and the EXIF orientation is applied.

    Raises:
        Exception: any exception of the decoder, if the data are unreadable.
    """
    is_upright = isinstance(image, TiffImageFile)  # its decoder applies the orientation
    transpose = None if is_upright else ORIENTATION_TRANSPOSES.get(orientation(image))
    image = eight_bit_rgb(image)
    return np.array(image if transpose is None else image.transpose(transpose))


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, which is upright, if it is missing or the EXIF data are not valid."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the parser can raise any exception; the pixels may be readable
        return 1
