"""Searches in an index by a network, both kept in memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.attention_maps import read_maps
from utils.descriptors.extraction import computation_errors
from utils.file_names import CATALOGUE, INDEX_ATTENTION
from utils.files.digests import file_version
from utils.image_index.image_index import ImageIndex
from utils.images.loading import Box, InputImage, load_pixels
from utils.serve.recent import Recent

KEPT_MAPS = 100_000
"""Number of attention maps in memory; one has less than 1 KB at S 512."""


QueryKey = tuple[str, str | None, Box | None]


class Query(NamedTuple):
    """An image to search for, or to show."""

    name: str
    """Its address in the page, `images/<row>` or `uploads/<key>`."""
    image: InputImage
    row: int | None = None
    """Row of an image of the index; None for an upload."""
    version: str | None = None
    """Version of its file, see `file_version`; None for an upload."""

    @property
    def key(self) -> QueryKey:
        """A key of the contents of the image and its box."""
        return self.name, self.version, self.image.box


class Found(NamedTuple):
    """A row of the index, and its similarity to the query."""

    row: int
    similarity: float


class Results(NamedTuple):
    """Results of a search."""

    found: list[Found]
    """By falling similarity."""
    changed: int
    """Number of these images that were deleted or changed after indexing."""
    outdated: bool
    """Whether the index has been written again since it was read."""


class PhotoSearcher:
    """Search of an index.

    Args:
        index: the index.
        network: the network that described its images, in evaluation mode.
        longer_side: S, the longer side of a resized image, in pixels.
        top: largest number of matches.
    """

    def __init__(self, index: ImageIndex, network: RetrievalNetwork, longer_side: int, top: int) -> None:
        self.index = index
        self.longer_side = longer_side
        self.top = top
        self._network = network
        self._catalogue = Path(index.location) / CATALOGUE
        self._version = file_version(self._catalogue)
        self._stored = read_maps(Path(index.location) / INDEX_ATTENTION, index.settings, index.keys)
        self._maps: Recent[QueryKey, np.ndarray] = Recent(KEPT_MAPS)

    @property
    def has_attention(self) -> bool:
        """Whether the network has attention maps."""
        return self._network.attention_pooling is not None

    def search(self, query: Query) -> Results:
        """Search for the most similar images, as `Search_Images.search` does.

        For an image of the index that was deleted, the result is the one that it had.

        Raises:
            UserError: the image is unreadable, its box has no pixel inside it, or files of the index were
                deleted.
        """
        if query.row is not None and query.image.box is None and not self._was_replaced(query.row):
            descriptor, itself = self.index.rows[np.array([query.row])][0], query.row
        else:
            descriptor, itself = self._describe(query), None
        found = [Found(*pair) for pair in self.index.nearest(descriptor, self.top, itself)]
        outdated = file_version(self._catalogue) != self._version
        return Results(found, self.index.count_changed([row for row, _ in found]), outdated)

    def attention(self, query: Query) -> np.ndarray:
        """Return the attention over an image or the part inside its box, (h, w) float32.

        Raises:
            UserError: the image is unreadable, or its box has no pixel inside it.
            ValueError: the network has no attention maps.
        """
        heat = self._maps.get(query.key)
        if heat is None:
            heat = self._stored_map(query)
        if heat is None:
            with computation_errors(), torch.inference_mode():
                heat = self._network.attention_map(self._prepare(query))[0].cpu().numpy()
            self._maps.add(query.key, heat)
        return heat

    def _stored_map(self, query: Query) -> np.ndarray | None:
        """Return the map of a complete image from the index; None if it has none or the image has changed."""
        if self._stored is None or query.row is None or query.image.box is not None:
            return None
        heat = self._stored[query.row]
        return None if heat is None or self.index.count_changed([query.row]) else heat

    def _was_replaced(self, row: int) -> bool:
        """Return whether an image of the index has other contents now."""
        return self.index.path(row).exists() and self.index.count_changed([row]) > 0

    def warm_up(self) -> None:
        """Search for a black image, since the first search of a process takes longer."""
        pixels = torch.zeros(3, 3 * self.longer_side // 4, self.longer_side, dtype=torch.uint8)
        self.search(Query("", InputImage(Path("black"), in_memory=pixels)))

    def _describe(self, query: Query) -> np.ndarray:
        """Return the descriptor of a query, (D,) float32, and keep its attention map."""
        network = self._network
        with computation_errors(), torch.inference_mode():
            prepared = self._prepare(query)
            if network.scales != (1.0,) or network.attention_pooling is None:
                return _first_row(network(prepared))
            descriptors, heat = network.describe_with_attention(prepared)
            self._maps.add(query.key, heat[0].cpu().numpy())
            return _first_row(descriptors)

    def _prepare(self, query: Query) -> Tensor:
        """Return the input of the network for a query, (1, 3, H, W)."""
        pixels = load_pixels(query.image, self.longer_side).unsqueeze(0)
        return self._network.backbone.prepare(pixels.to(self._network.backbone.device))


def _first_row(descriptors: Tensor) -> np.ndarray:
    """Return the first of some descriptors, (1, 1, D), as (D,)."""
    return descriptors.flatten().cpu().numpy()
