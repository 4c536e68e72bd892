"""Images to show: files decoded at a reduced size, and images in memory that others have sent."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from utils.images.loading import decoding_errors, identified, opened
from utils.images.orientation import upright_rgb

ACCEPTED_FORMATS = (*("JPEG", "MPO", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF", "HEIF"),)
"""Pillow's names of the formats of sent images. To read some other formats, Pillow runs programs."""


def read_reduced(path: Path, side: int) -> Image.Image:
    """Decode an image file to an upright image whose longer side is at most `side`, RGB.

    A JPEG is decoded at a reduced size, which is fast and changes pixels slightly: for display only.

    Raises:
        UnreadableImageError: the path is not a regular file, or the file cannot be decoded.
    """
    with opened(path) as image:
        image.draft(None, (side, side))
        return reduce(upright_rgb(image), side)


def reduce(pixels: np.ndarray, side: int) -> Image.Image:
    """Return pixels, (H, W, 3) uint8, as an image whose longer side is at most `side`."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), reducing_gap=2.0)
    return image


def decode_sent(data: bytes, name: str, most_pixels: int) -> np.ndarray:
    """Decode an image that others have sent to (H, W, 3) uint8, RGB, as `read_image` decodes a file.

    Args:
        data: the contents of the file.
        name: the name in messages.
        most_pixels: the maximum number of pixels; a larger image is refused before it is decoded.

    Raises:
        UnreadableImageError: the image is too large or cannot be decoded, or has another format.
        UserError: the system is short of memory.
    """
    with decoding_errors(Path(name)), identified(io.BytesIO(data), True, ACCEPTED_FORMATS) as image:
        if image.width * image.height > most_pixels:
            raise ValueError(f"it has more than {most_pixels // 10**6} megapixels")
        return upright_rgb(image)
