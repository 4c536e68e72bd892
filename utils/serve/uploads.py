"""Photos that were sent to the page. They are kept in memory only, and have no file names."""

import secrets

import numpy as np
import torch
from torch import Tensor

from utils.images.reduced import decode_sent
from utils.serve.recent import Recent

MOST_BYTES = 64 * 2**20
"""Maximum number of bytes of a photo."""

MOST_PIXELS = 100 * 10**6
"""Maximum number of pixels of a photo, which has 300 MB then."""

KEPT_BYTES = 400 * 2**20
"""Maximum number of bytes of all decoded photos in memory."""

NAME = "this photo"
"""Name of a photo in messages."""


class Uploads:
    """The photos that were sent last, decoded."""

    def __init__(self) -> None:
        self._pixels: Recent[str, np.ndarray] = Recent(KEPT_BYTES, lambda pixels: pixels.nbytes)

    def add(self, data: bytes) -> tuple[str, np.ndarray]:
        """Decode a photo and keep it.

        Args:
            data: the contents of its file.

        Returns:
            A random key of the photo, and its pixels, (H, W, 3) uint8, RGB.

        Raises:
            UnreadableImageError: it cannot be decoded, or has too many pixels.
        """
        pixels = decode_sent(data, NAME, MOST_PIXELS)
        key = secrets.token_urlsafe(16)
        self._pixels.add(key, pixels)
        return key, pixels

    def get(self, key: str) -> np.ndarray | None:
        """Return the pixels of a photo, or None if it was not sent or was dropped since."""
        return self._pixels.get(key)


def as_tensor(pixels: np.ndarray) -> Tensor:
    """Return pixels, (H, W, 3), as a tensor (3, H, W) that shares their memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)
