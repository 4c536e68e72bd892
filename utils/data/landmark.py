"""Images without labels that the whitening is learned from: found, drawn, and those too small left out."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.images.listing import images_below, report_thumbnails
from utils.images.loading import UnreadableImageError, image_size, resized_size
from utils.text import first_names

log = logging.getLogger(__name__)

FOLDER = Path("Landmark", "train", "data")
THREADS = 16
"""Headers read at a time: on a network's disk they are waited for, not computed."""


class SizedImages(NamedTuple):
    """Images large enough with their resized heights and widths; those too small; those unreadable."""

    paths: list[Path]
    sizes: list[tuple[int, int]]
    small: list[Path]
    unreadable: list[Path]


def find_images(folder: Path, samples: int | None, seed: int) -> list[Path]:
    """Find the images in a folder and in all folders below it, in the order of their paths.

    Args:
        folder: where they lie.
        samples: how many to draw; all if None or where there are fewer.
        seed: of the draw.

    Raises:
        UserError: there are none.
    """
    if not folder.is_dir():
        raise UserError(f"no images to learn from: {folder} is missing (see datasets/README.md)")
    contents = images_below(folder)
    report_thumbnails(contents, folder)
    paths = contents.images
    if not paths:
        raise UserError(f"no images in {folder} or the folders in it")
    if samples is None or samples >= len(paths):
        return paths
    drawn = np.random.default_rng(seed).permutation(len(paths))[:samples]
    return [paths[place] for place in np.sort(drawn)]


def large_enough(paths: Sequence[Path], longer_side: int, min_side: int) -> SizedImages:
    """Sort images by what their headers say, which takes no decoding; a note names the unreadable ones.

    Args:
        paths: the images.
        longer_side: S, the longer side after resizing, in pixels.
        min_side: the least height and width after resizing, in pixels.

    Raises:
        UserError: none is large enough.
    """

    def resized(path: Path) -> tuple[int, int] | None:
        try:
            return resized_size(*image_size(path), longer_side)
        except UnreadableImageError:
            return None

    found = SizedImages([], [], [], [])
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = tqdm(pool.map(resized, paths), "headers", len(paths), unit="image", disable=None)
        for path, size in zip(paths, sizes, strict=True):
            if size is None:
                found.unreadable.append(path)
            elif min(size) < min_side:
                found.small.append(path)
            else:
                found.paths.append(path)
                found.sizes.append(size)
    if found.unreadable:
        names = first_names(list(map(str, found.unreadable)))
        log.warning("note: left out %d images that cannot be read (%s)", len(found.unreadable), names)
    if not found.paths:
        raise UserError(
            f"none of {len(paths)} images is large enough: with the longer side at {longer_side}, "
            f"{len(found.small)} have one under {min_side}, and {len(found.unreadable)} cannot be read"
        )
    return found
