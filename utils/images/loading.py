"""Loading of image files as resized RGB pixels, before the normalisation of the backbone."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor

from utils.errors import UserError
from utils.files.regular import open_regular
from utils.images.heif import HEIF_BYTES, add_heif_to_pillow
from utils.images.listing import FIRST_BYTES_COUNT
from utils.images.orientation import SIDEWAYS_ORIENTATIONS, orientation, upright_rgb
from utils.images.resize import bilinear_resize
from utils.program.outside_errors import is_shortage, outside_error

Box = tuple[float, float, float, float]
"""A box x1, y1, x2, y2 in pixels of the original image."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class InputImage(NamedTuple):
    """An image file or an image in memory, or the part of it inside a box."""

    path: Path
    """The file; the name in messages of an image in memory."""
    box: Box | None = None
    query: str | None = None
    """Name of the query; None for an image of the database."""
    in_memory: Image.Image | Tensor | None = None
    """The image if it is in memory, a tensor as (3, H, W) uint8, RGB; None to read the file."""

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Add the name of the query to every UserError of a block."""
        try:
            yield
        except UserError as error:
            if self.query is None:
                raise
            raise UserError(f"query {self.query}: {error}; a query cannot be left out") from error


class UnreadableImageError(UserError):
    """Raised for an image file that cannot be decoded."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(path, reason)
        self.path = path
        text = getattr(reason, "strerror", None)  # without the path, which the message already has
        if isinstance(reason, UnidentifiedImageError):
            text = "its format is unknown, or it is not an image"
        elif isinstance(reason, Image.DecompressionBombError):
            text = f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels"
        self.reason = text or str(reason) or type(reason).__name__

    def __str__(self) -> str:
        return f"{self.path} cannot be decoded: {self.reason}"


class EmptyBoxError(UserError):
    """Raised for a box that has no pixel inside its image."""


def load_pixels(image: InputImage, longer_side: int) -> Tensor:
    """Decode an image, resize it and crop it to its box.

    Args:
        image: the file and the box; the image is not cropped if the box is None.
        longer_side: S, the longer side of the image after resizing and before cropping, in pixels.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImageError: the file cannot be decoded.
        EmptyBoxError: the box has no pixel inside the image.
        UserError: the memory does not suffice for the resized image.
    """
    with image.named_in_errors():
        decoded = read_image(image.path) if image.in_memory is None else _pixels_in_memory(image)
        try:
            pixels = resize(decoded, longer_side)
        except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError if it lacks memory on a CPU
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
    """Decode an image file to (H, W, 3) uint8, RGB, see `upright_rgb`.

    Only the first frame of an animation is decoded. A PNG file with a wrong checksum is unreadable, even if
    its pixels can be decoded.

    Raises:
        UnreadableImageError: the path is not a regular file, or the file cannot be decoded.
    """
    with opened(path, verify=True) as image:
        return upright_rgb(image)


def _pixels_in_memory(image: InputImage) -> np.ndarray:
    """Return an image in memory as (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImageError: Pillow has not decoded it yet, and cannot.
        UserError: the system is short of memory.
    """
    with decoding_errors(image.path):
        if isinstance(image.in_memory, Image.Image):
            return upright_rgb(image.in_memory)
        assert image.in_memory is not None
        return np.ascontiguousarray(image.in_memory.cpu().numpy().transpose(1, 2, 0))


def image_size(path: Path) -> tuple[int, int]:
    """Read the height and width of the upright image from the header of a file.

    Raises:
        UnreadableImageError: the path is not a regular file, or the header cannot be read.
    """
    with opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # some versions of Pillow exchange height and width themselves
            width, height = (image.tag_v2[tag] for tag in (IMAGEWIDTH, IMAGELENGTH))
        return (width, height) if orientation(image) in SIDEWAYS_ORIENTATIONS else (height, width)


def check_box(image: InputImage, longer_side: int) -> None:
    """Check that the box of an image has a pixel inside the image, without decoding the image.

    Raises:
        UnreadableImageError: the header cannot be read.
        EmptyBoxError: the box has no pixel inside the image.
    """
    if image.box is not None:
        with image.named_in_errors():
            _resized_box(image.path, image.box, longer_side, *image_size(image.path))


def resized_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Return the height and width of an image after resizing its longer side to `longer_side`.

    The shorter side is rounded half to even and is at least 1.
    """
    ratio = longer_side / max(height, width)
    return max(round(height * ratio), 1), max(round(width * ratio), 1)


def resize(pixels: np.ndarray, longer_side: int) -> Tensor:
    """Resize an image so that its longer side is `longer_side`, with exactly the values of OpenCV.

    Args:
        pixels: (H, W, 3) uint8.
        longer_side: S, the longer side of the result, in pixels.

    Returns:
        (H', W', 3) uint8.
    """
    height, width, _ = pixels.shape
    size = resized_size(height, width, longer_side)
    return torch.from_numpy(pixels if size == (height, width) else bilinear_resize(pixels, *size))


def _resized_box(
    path: Path, box: Box, longer_side: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """Return the box in pixels of the resized image, clipped to it: left, top, right, bottom.

    Args:
        path: the image file, for the error message.
        box: the box in pixels of the original image.
        longer_side: S, the longer side of the resized image.
        height: the height of the original image.
        width: the width of the original image.
    """
    ratio = np.float32(longer_side / max(height, width))
    resized_height, resized_width = resized_size(height, width, longer_side)
    with np.errstate(over="ignore"):  # a side beyond the range of float32 becomes infinite and is clipped
        sides = np.rint(np.array(box).astype(np.float32) * ratio)
    limits = [resized_width, resized_height, resized_width, resized_height]
    left, top, right, bottom = sides.clip(0, limits).astype(int).tolist()
    if right <= left or bottom <= top:
        sides_text = " ".join(f"{side:g}" for side in box)
        raise EmptyBoxError(f"the box {sides_text} has no pixel inside {path} ({width} x {height})")
    return left, top, right, bottom


@contextmanager
def opened(path: Path, verify: bool = False) -> Iterator[Image.Image]:
    """Open an image file for a block; refuse pipes and devices, which could block.

    Args:
        path: the file.
        verify: see `identified`.

    Raises:
        UnreadableImageError: the path is not a regular file, or the block raises any exception.
        UserError: the system is short of memory or open files.
    """
    with decoding_errors(path), open_regular(path) as file, identified(file, verify) as image:
        yield image


@contextmanager
def identified(
    file: BinaryIO, verify: bool = False, formats: Sequence[str] | None = None
) -> Iterator[Image.Image]:
    """Open an image in an open file for a block, without decoding it.

    Args:
        file: the file.
        verify: compare the checksums of a PNG file, which reads the file one more time.
        formats: Pillow's names of the formats that are accepted; all that Pillow can read if None.

    Raises:
        Exception: any exception of Pillow, if the file is no image.
    """
    start = file.read(FIRST_BYTES_COUNT)
    if HEIF_BYTES.match(start):
        add_heif_to_pillow()
    if formats is not None:
        Image.init()
        formats = [name for name in formats if name in Image.OPEN]
    if verify and start.startswith(PNG_SIGNATURE):
        file.seek(0)
        with Image.open(file, formats=formats) as image:
            image.verify()
    file.seek(0)
    with Image.open(file, formats=formats) as image:
        yield image


@contextmanager
def decoding_errors(path: Path) -> Iterator[None]:
    """Convert any exception of a block that decodes an image to a UserError that names the image.

    Raises:
        UnreadableImageError: the block raises any exception.
        UserError: the system is short of memory or open files.
    """
    # Pillow warns about invalid metadata and about more than 89 megapixels; it refuses twice as many.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    except Exception as error:  # decoders can raise any exception
        if is_shortage(error):  # the image may be readable
            raise UserError(f"{path} cannot be decoded now: {outside_error(error)}") from error
        raise UnreadableImageError(path, error) from error
