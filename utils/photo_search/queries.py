"""The images that a query searches for: image files, and all images in folders."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.describe import NoReadableImageError
from utils.descriptors.describe import describe as describe_images
from utils.errors import UserError
from utils.images.batches import Loading
from utils.images.listing import FolderContents, images_below, report_left_out
from utils.images.loading import Box, InputImage
from utils.processes import Processes
from utils.text import first_names

log = logging.getLogger(__name__)

WORKERS_FROM = 16
"""Number of images from which worker processes decode them; fewer are decoded before the workers start."""


def is_one_image(paths: Sequence[Path]) -> bool:
    """Return True if the paths are one path, and not of a folder."""
    return len(paths) == 1 and not paths[0].is_dir()


def query_images(paths: Sequence[Path], box: Box | None = None) -> list[InputImage]:
    """Return the images of paths in their order, with all images in a folder and below it, sorted by path.

    Args:
        paths: image files and folders.
        box: the part to search for, if there is one image.

    Raises:
        UserError: there are no images, a folder cannot be listed, or a box is given for several images.
    """
    if box is not None and not is_one_image(paths):
        raise UserError("box is of one image: name one image, or leave box out")
    images: list[Path] = []
    for path in paths:
        images += list_images(path).images if path.is_dir() else [path]
    if not paths:
        raise UserError("images is empty: give at least one image")
    if not images:
        raise UserError(f"no images in {first_names([str(path) for path in paths])}")
    return [InputImage(path, box) for path in images]


def list_images(folder: Path) -> FolderContents:
    """Return the images in a folder and the folders below it, and log what is left out.

    Raises:
        UserError: the folder cannot be listed.
    """
    contents = images_below(folder)
    report_left_out(contents, folder)
    if contents.others:
        names = first_names([str(path.relative_to(folder)) for path in contents.others])
        log.warning(
            "note: %d files or folders are no images, or cannot be read (%s)", len(contents.others), names
        )
    return contents


def describe_queries(
    network: RetrievalNetwork, images: Sequence[InputImage], longer_side: int, only: bool
) -> dict[int, np.ndarray]:
    """Return the descriptors, (D,) float32, of the readable images by their index, and log the others.

    Each image is described alone, so that its descriptor does not depend on the other images.

    Args:
        network: the network.
        images: the images, at least one.
        longer_side: S, the longer side of the resized images, in pixels.
        only: whether there are no other queries, so that one image must be readable.

    Raises:
        UnreadableImageError: the only query is unreadable.
        NoReadableImageError: all of several queries are unreadable.
    """
    device = network.backbone.device
    workers = None if len(images) >= WORKERS_FROM else 0
    loading = Loading.on(device, longer_side, batch_size=1, workers=workers)
    several = not only or len(images) > 1
    title = "queries" if several else "query"
    try:
        described = describe_images(
            network, images, loading, Processes(0, 1, device), skip_bad_images=several, title=title
        )
        rows, unreadable = described.rows[:], described.unreadable
    except NoReadableImageError as error:
        if only:
            raise
        rows, unreadable = np.empty((0, 0)), error.unreadable
    for reason in unreadable.values():
        log.warning("note: left out %s", reason)
    readable = [index for index in range(len(images)) if index not in unreadable]
    return dict(zip(readable, rows, strict=True))
