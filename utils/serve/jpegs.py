"""JPEGs that the page shows: reduced images and heat maps."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

from utils.figures.heat_map import heat_map
from utils.images.loading import image_size
from utils.images.reduced import read_reduced, reduce
from utils.serve.recent import Recent
from utils.serve.searcher import PhotoSearcher, Query, QueryKey

THUMBNAIL_SIDE = 400
PREVIEW_SIDE = 1200
"""Longest sides of an image among others, and of the image to search for, in pixels."""

KEPT_BYTES = 128 * 2**20
"""Maximum number of bytes of all JPEGs in memory."""

QUALITY = 85


class Jpegs:
    """JPEGs of images and of their attention, of which the last ones are kept.

    Args:
        searcher: computes the attention.
    """

    def __init__(self, searcher: PhotoSearcher) -> None:
        self._searcher = searcher
        self._kept: Recent[tuple[int | str, QueryKey], bytes] = Recent(KEPT_BYTES, len)

    def image(self, query: Query, side: int) -> bytes:
        """Return the complete image, its longer side at most `side`.

        Raises:
            UserError: the image is unreadable.
        """
        return self._get((side, (query.name, query.version, None)), lambda: _reduced(query, side))

    def heat_map(self, query: Query) -> bytes:
        """Return the attention over an image, or over the part inside its box.

        Raises:
            UserError: the image is unreadable, or its box has no pixel inside it.
            ValueError: the network has no attention.
        """
        return self._get(("heat map", query.key), lambda: self._draw(query))

    def _get(self, key: tuple[int | str, QueryKey], draw: Callable[[], Image.Image]) -> bytes:
        data = self._kept.get(key)
        if data is None:
            file = io.BytesIO()
            Image.fromarray(np.asarray(draw())).save(file, "JPEG", quality=QUALITY)  # without metadata
            data = file.getvalue()
            self._kept.add(key, data)
        return data

    def _draw(self, query: Query) -> Image.Image:
        """Draw the heat map of an image, or of the part inside its box."""
        heat = self._searcher.attention(query)
        if query.image.box is None:
            return heat_map(heat, np.asarray(_reduced(query, THUMBNAIL_SIDE)))
        image = _reduced(query, PREVIEW_SIDE)
        height, width = shape(query)
        scales = np.array([image.width / width, image.height / height] * 2)
        limits = np.array([image.width, image.height])
        first, last = (np.array(query.image.box) * scales).reshape(2, 2)
        first = np.clip(first.round(), 0, limits - 1).astype(int)
        last = np.clip(last.round(), first + 1, limits).astype(int)
        part = image.crop((*first.tolist(), *last.tolist()))
        part.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return heat_map(heat, np.asarray(part))


def shape(query: Query) -> tuple[int, int]:
    """Return the height and width of an upright image.

    Raises:
        UnreadableImageError: the file of the image is unreadable.
    """
    if isinstance(query.image.in_memory, Tensor):
        _, height, width = query.image.in_memory.shape
        return height, width
    return image_size(query.image.path)


def _reduced(query: Query, side: int) -> Image.Image:
    if isinstance(query.image.in_memory, Tensor):
        return reduce(query.image.in_memory.permute(1, 2, 0).numpy(), side)
    return read_reduced(query.image.path, side)
