"""Keys of images in a descriptor store: text that changes with an image's contents, name or box."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from utils.files.regular import open_regular
from utils.images.loading import InputImage

BLOCK = 4096
"""Bytes at the beginning, in the middle and at the end of a file that its digest is of."""

UNCOMPRESSED = (b"P", b"BM", b"II*\0", b"MM\0*")
"""First bytes of PNM, BMP and TIFF files, in which one pixel changes a few bytes and nothing after them."""

DIGEST_BYTES = 12
THREADS = 16
"""Files read at a time: on a network's disk they are waited for, not computed."""


def image_key(image: InputImage, name: str) -> str:
    """Return the key of an image: its name, its file's size, time and digest, and its box.

    The digest tells images of several data sets apart that have one name, size and time. The folder is no
    part of the key, so that a data set may be moved and its copies share a store.

    Args:
        image: the file and the box.
        name: what tells the file from others of its data set.
    """
    try:
        with open_regular(image.path) as file:
            status = os.fstat(file.fileno())
            contents = (str(status.st_size), str(status.st_mtime_ns), _digest(file, status.st_size))
    except OSError:  # nothing will be described that could be kept under this key
        contents = ("", "", "")
    box = "" if image.box is None else " ".join(map(repr, image.box))
    return "\0".join((name, *contents, box))


def image_keys(images: Sequence[InputImage], names: Sequence[str]) -> list[str]:
    """Return the keys of many images, see `image_key`."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(image_key, images, names))


def _digest(file: BinaryIO, size: int) -> str:
    """Return a digest of a file's contents: of three blocks of them if they are compressed, else of all.

    Any other image changes a compressed file's length, or all bytes after the first that differs.
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
