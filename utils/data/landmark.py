"""Images without labels to learn the whitening from."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.images.listing import images_below, report_left_out
from utils.images.loading import UnreadableImageError, image_size, resized_size
from utils.text import first_names

log = logging.getLogger(__name__)

FOLDER = Path("Landmark", "train", "data")
THREADS = 16
"""Headers read in parallel: on a network disk, reading them is mostly waiting."""


class SizedImages(NamedTuple):
    """Images sorted by their size."""

    paths: list[Path]
    """Images that are large enough."""
    sizes: list[tuple[int, int]]
    """Height and width after resizing of each image in `paths`."""
    small: list[Path]
    """Images that are too small."""
    unreadable: list[Path]
    """Images whose header cannot be read."""


def find_images(folders: Sequence[Path], samples: int | None, seed: int) -> list[Path]:
    """Find the images in some folders and in all folders below them.

    Args:
        folders: the folders. An image that several of them contain counts once.
        samples: number of images to draw; all images if None or if there are fewer.
        seed: seed of the draw.

    Returns:
        The images folder by folder, each folder's in the order of their paths.

    Raises:
        UserError: a folder is missing or has no images.
    """
    by_file: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            reason = "is not a folder" if folder.exists() else "is missing"
            raise UserError(f"no images to learn from: {folder} {reason} (see datasets/README.md)")
        contents = images_below(folder)
        report_left_out(contents, folder)
        if not contents.images:
            raise UserError(f"no images in {folder} or the folders in it")
        for path in contents.images:
            by_file.setdefault(path.resolve(), path)
    paths = list(by_file.values())
    if samples is None or samples >= len(paths):
        return paths
    drawn = np.random.default_rng(seed).permutation(len(paths))[:samples]
    return [paths[index] for index in np.sort(drawn)]


def select_large_images(paths: Sequence[Path], longer_side: int, min_side: int) -> SizedImages:
    """Select the images that are large enough, and log notes on the images left out.

    Only headers are read; no image is decoded.

    Args:
        paths: the images.
        longer_side: S, the longer side after resizing, in pixels.
        min_side: the minimum height and width after resizing, in pixels.

    Raises:
        UserError: no image is large enough.
    """

    def resized(path: Path) -> tuple[int, int] | None:
        try:
            return resized_size(*image_size(path), longer_side)
        except UnreadableImageError:
            return None

    images = SizedImages([], [], [], [])
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = tqdm(pool.map(resized, paths), "headers", len(paths), unit="image", disable=None)
        for path, size in zip(paths, sizes, strict=True):
            if size is None:
                images.unreadable.append(path)
            elif min(size) < min_side:
                images.small.append(path)
            else:
                images.paths.append(path)
                images.sizes.append(size)
    if images.unreadable:
        names = first_names(list(map(str, images.unreadable)))
        log.warning("note: left out %d images that cannot be read (%s)", len(images.unreadable), names)
    if images.small and images.paths:
        log.warning(
            "note: left out %d of %d images, resized to a longer side of %d, with a side under %d: "
            "see --min-side",
            len(images.small),
            len(paths),
            longer_side,
            min_side,
        )
    if not images.paths:
        raise UserError(
            f"none of {len(paths)} images is large enough: resized to a longer side of {longer_side}, "
            f"{len(images.small)} have a side under {min_side}, and {len(images.unreadable)} cannot be read"
        )
    return images
