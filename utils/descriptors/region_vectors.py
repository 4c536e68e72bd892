"""Region vectors of images, computed when they are first needed and kept in memory."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.extraction import network_outputs
from utils.images.batches import Loading, UnreadableImage
from utils.images.loading import InputImage

log = logging.getLogger(__name__)


class ImageRegions(NamedTuple):
    """The regions of one image."""

    vectors: np.ndarray
    """(R, D) float16, whitened vectors of length 1."""
    weights: np.ndarray
    """(R,) float16, greater than 0."""


RegionsOf = Callable[[Sequence[int]], "list[ImageRegions | None]"]
"""A function from indices of images to their regions; None for an unreadable image."""


class RegionVectors:
    """The regions of a list of images.

    Each image is described once; 1,000 images of 85 regions with 512 dimensions take 0.09 GB.

    Args:
        network: the network, in evaluation mode.
        images: the images.
        loading: the settings of the loading; the main process decodes the images.
        pooling: index of the pooling of the network.
    """

    def __init__(
        self, network: RetrievalNetwork, images: Sequence[InputImage], loading: Loading, pooling: int = 0
    ) -> None:
        self._network = network
        self._images = images
        self._loading = loading._replace(workers=0)  # workers would be started for a few images of each query
        self._pooling = pooling
        self._regions: dict[int, ImageRegions | None] = {}

    def __call__(self, indices: Sequence[int]) -> list[ImageRegions | None]:
        """Return the regions of images by their indices; None, with a note, for an unreadable image.

        Raises:
            UserError: a value is not finite, or the memory does not suffice.
        """
        missing = [index for index in indices if index not in self._regions]
        compute = partial(self._network.weighted_regions, pooling=self._pooling)
        images = [self._images[index] for index in missing]
        for output in network_outputs(self._network, images, self._loading, compute=compute):
            if isinstance(output, UnreadableImage):
                log.warning("note: its regions are not compared: %s", output.error)
                self._regions[missing[output.position]] = None
                continue
            for position, values in zip(output.indices, output.values.astype(np.float16), strict=True):
                self._regions[missing[position]] = ImageRegions(values[:, :-1], values[:, -1])
        return [self._regions[index] for index in indices]
