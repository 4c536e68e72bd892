"""Keys of images in a descriptor store: texts that depend on the contents, name and box of an image."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from utils.files.regular import open_regular
from utils.images.loading import Box, InputImage

BLOCK = 4096
"""Bytes at the start, in the middle and at the end of a file that are in its digest."""

UNCOMPRESSED = (b"P", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of PNM, BMP, TIFF and BigTIFF files, in which a changed pixel changes only a few bytes."""

DIGEST_BYTES = 12
THREADS = 16
"""Files read in parallel: on a network disk, reading them is mostly waiting."""


def image_key(image: InputImage, name: str) -> str:
    """Return the key of an image: its name, the size, time and digest of its file, and its box.

    The digest distinguishes images of several data sets that have the same name, size and time. The folder
    is not in the key: a data set can be moved, and its copies can share a store.

    Args:
        image: the file and the box.
        name: a name that is unique in the data set.
    """
    try:
        with open_regular(image.path) as file:
            status = os.fstat(file.fileno())
            contents = (str(status.st_size), str(status.st_mtime_ns), _digest(file, status.st_size))
    except OSError:  # an unreadable image has no descriptor to store under this key
        contents = ("", "", "")
    box = "" if image.box is None else " ".join(map(repr, image.box))
    return "\0".join((name, *contents, box))


def image_keys(images: Sequence[InputImage], names: Sequence[str]) -> list[str]:
    """Return the keys of several images, see `image_key`."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(image_key, images, names))


def name_and_box(key: str) -> tuple[str, Box | None]:
    """Return the name and the box in the key of an image.

    Raises:
        ValueError: the text is not a key.
    """
    name, _, _, _, box = key.split("\0")
    if not box:
        return name, None
    x1, y1, x2, y2 = map(float, box.split(" "))
    return name, (x1, y1, x2, y2)


def _digest(file: BinaryIO, size: int) -> str:
    """Return a digest of the contents of a file: of three blocks if they are compressed, else of all bytes.

    Three blocks suffice for a compressed file: a changed image nearly always changes its length or all bytes
    after the first changed byte. The exception is a JPEG file with restart markers, after which the bytes can
    be the same. The key has the time of the file, too.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    first = file.read(BLOCK)
    digest.update(first)
    if first.startswith(UNCOMPRESSED):
        while block := file.read(1 << 20):
            digest.update(block)
    else:
        for start in (size // 2, size - BLOCK):
            file.seek(max(start, 0))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()
