"""Conversion of images of any mode to 8-bit RGB, as OpenCV does it."""

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

WHITE_IS_ZERO = 0
SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})
"""Formats in which images of mode I have 16 bits per pixel."""


def eight_bit_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to mode RGB.

    Grey is repeated in three channels, CMYK is converted and alpha is dropped. Pixels of 9 to 16 bits, also
    signed ones, keep their upper 8 bits.

    Args:
        image: an open image that is not decoded yet.

    Raises:
        ValueError: the pixels are real numbers or have more than 16 bits, which defines no white level.
        Exception: any exception of the decoder, if the data are unreadable.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = _upper_bits(image)
    elif image.mode == "P":  # Pillow warns about transparent palettes unless they become RGBA first
        image = image.convert("RGBA")
    return image.convert("RGB")


def _upper_bits(image: Image.Image) -> Image.Image:
    """Return the upper 8 of the 9 to 16 bits per pixel, as an image of mode L."""
    bits, is_inverted = 16, False
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2[BITSPERSAMPLE][0]
        is_inverted = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO  # Pillow ignores it
    if image.mode == "F" or bits > 16 or (image.mode == "I" and not _has_sixteen_bits(image)):
        kind = "real numbers" if image.mode == "F" else "integers of 32 bits"
        raise ValueError(f"its pixels are {kind}: save it with 8 or 16 bits")
    levels = ((np.array(image).astype(np.int64) & 0xFFFF) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - levels if is_inverted else levels)


def _has_sixteen_bits(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) or image.format in SIXTEEN_BIT_FORMATS
