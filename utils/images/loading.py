"""From an image file to the pixels that the network sees, up to the backbone's own normalisation."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor

from utils.errors import UserError
from utils.files.regular import open_regular
from utils.images.eight_bit_colour import eight_bit_rgb
from utils.images.resize import bilinear_resize
from utils.program.outside_errors import is_shortage, outside_error

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the original image."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of each EXIF orientation upright; 1 is upright."""

SIDEWAYS = (UPRIGHT[5], UPRIGHT[6], UPRIGHT[7], UPRIGHT[8])
"""Those in which height and width change places."""


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class InputImage(NamedTuple):
    """An image file, or the part of it inside a box."""

    path: Path
    box: Box | None = None
    query: str | None = None
    """The name of the query that it is; None for an image of the database."""

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Name the query in the user errors of a block."""
        try:
            yield
        except UserError as error:
            if self.query is None:
                raise
            raise UserError(f"query {self.query}: {error}; a query cannot be left out") from error


class UnreadableImageError(UserError):
    """A file that should be an image cannot be decoded."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(path, reason)
        self.path = path
        told = getattr(reason, "strerror", None)  # without the path, which is told already
        if isinstance(reason, UnidentifiedImageError):
            told = "its format is unknown, or it is no image"
        elif isinstance(reason, Image.DecompressionBombError):
            told = f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels"
        self.reason = told or str(reason) or type(reason).__name__

    def __str__(self) -> str:
        return f"{self.path} cannot be decoded: {self.reason}"


class EmptyBoxError(UserError):
    """A region of interest has no pixel inside its image."""


def load_pixels(image: InputImage, longer_side: int) -> Tensor:
    """Decodes an image, resizes it and cuts out its box.

    Args:
        image: the file and the box, or no box for the whole image.
        longer_side: S, the longer side of the resized whole image, in pixels.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImageError: the file cannot be decoded.
        EmptyBoxError: the box has no pixel inside the image.
        UserError: the memory does not suffice for the resized image.
    """
    with image.named_in_errors():
        decoded = read_image(image.path)
        try:
            pixels = resize(decoded, longer_side)
        except (MemoryError, RuntimeError) as error:  # torch has no exception of its own for this on a CPU
            raise UserError(
                f"the memory does not suffice to resize {image.path} to {longer_side} pixels: "
                "try a smaller --S"
            ) from error
        if image.box is None:
            return pixels
        height, width, _ = decoded.shape
        left, top, right, bottom = _resized_box(image.path, image.box, longer_side, height, width)
        return pixels[top:bottom, left:right].contiguous()


def read_image(path: Path) -> np.ndarray:
    """Decode an image to (H, W, 3) uint8, RGB.

    Modes are converted as `eight_bit_rgb` says, the EXIF orientation is applied, and the first frame of an
    animation is taken. A PNG file with a wrong checksum is unreadable, even if its pixels can be decoded.

    Raises:
        UnreadableImageError: the path leads to no regular file, or the file cannot be decoded.
    """
    with _opened(path, verify=True) as image:
        is_turned = isinstance(image, TiffImageFile)  # by its decoder
        upright = None if is_turned else UPRIGHT.get(_orientation(image))
        image = eight_bit_rgb(image)
        return np.array(image if upright is None else image.transpose(upright))


def image_size(path: Path) -> tuple[int, int]:
    """Return the height and width of an image, upright, from its header alone.

    Raises:
        UnreadableImageError: the path leads to no regular file, or the header cannot be read.
    """
    with _opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # whose size is upright already in some versions of Pillow
            width, height = (image.tag_v2[tag] for tag in (IMAGEWIDTH, IMAGELENGTH))
        sideways = UPRIGHT.get(_orientation(image)) in SIDEWAYS
        return (width, height) if sideways else (height, width)


def check_box(image: InputImage, longer_side: int) -> None:
    """Checks, without decoding the image, that its box has a pixel inside it.

    Raises:
        UnreadableImageError: the header cannot be read.
        EmptyBoxError: the box has no pixel inside the image.
    """
    if image.box is not None:
        with image.named_in_errors():
            _resized_box(image.path, image.box, longer_side, *image_size(image.path))


def resized_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Height and width when the longer side becomes `longer_side`: rounded halves to even, at least 1."""
    ratio = longer_side / max(height, width)
    return max(round(height * ratio), 1), max(round(width * ratio), 1)


def resize(pixels: np.ndarray, longer_side: int) -> Tensor:
    """Resize an image so that its longer side is `longer_side`, in every value as OpenCV does.

    Args:
        pixels: (H, W, 3) uint8.
        longer_side: S, the longer side of the result.

    Returns:
        (H', W', 3) uint8.
    """
    height, width, _ = pixels.shape
    size = resized_size(height, width, longer_side)
    return torch.from_numpy(pixels if size == (height, width) else bilinear_resize(pixels, *size))


def _resized_box(
    path: Path, box: Box, longer_side: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """The box in pixels of the resized image of size height × width before resizing, clamped to it."""
    ratio = np.float32(longer_side / max(height, width))
    resized_height, resized_width = resized_size(height, width, longer_side)
    with np.errstate(over="ignore"):  # a side that float32 cannot hold is infinite, and clamped like others
        sides = np.rint(np.array(box).astype(np.float32) * ratio)
    limits = [resized_width, resized_height, resized_width, resized_height]
    left, top, right, bottom = sides.clip(0, limits).astype(int).tolist()
    if right <= left or bottom <= top:
        sides_text = " ".join(f"{side:g}" for side in box)
        raise EmptyBoxError(f"the box {sides_text} has no pixel inside {path} ({width} x {height})")
    return left, top, right, bottom


@contextmanager
def _opened(path: Path, verify: bool = False) -> Iterator[Image.Image]:
    """Open an image file; the one place where that is done, so that none waits for a pipe or a device.

    Args:
        path: the file.
        verify: whether to compare the checksums of a PNG file, which reads it one more time.

    Raises:
        UnreadableImageError: the path leads to no regular file, or what is done with the image fails.
        UserError: the system is short of memory or of open files.
    """
    # Pillow warns of damaged metadata, and of more than 89 megapixels; it refuses twice as many by itself.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with open_regular(path) as file:
            if verify and file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE:
                with Image.open(file) as image:
                    image.verify()
            file.seek(0)
            with Image.open(file) as image:
                yield image
    except Exception as error:  # the decoders of some thirty formats raise whatever they like
        if is_shortage(error):  # the image may be fine
            raise UserError(f"{path} cannot be decoded now: {outside_error(error)}") from error
        raise UnreadableImageError(path, error) from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1, upright, where there is none or the EXIF data are damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise whatever their parser meets; the pixels may be fine
        return 1
