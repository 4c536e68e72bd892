"""The interface of all poolings: a feature map becomes regions, each with a vector and a weight."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class Regions(NamedTuple):
    """The regions of N feature maps."""

    vectors: Tensor
    """(N, R, C), one vector per region."""
    weights: Tensor
    """(N, R), greater than 0."""


class Pooling(nn.Module, ABC):
    """A way to pool feature maps.

    A descriptor is the weighted mean of the regions' vectors, after whitening and L2 normalisation of each.
    """

    name: ClassVar[str]
    """The name of the pooling on the command line."""

    has_attention: ClassVar[bool] = False
    """Whether the weights are learned, and differ from region to region."""

    @abstractmethod
    def forward(self, maps: Tensor, image_size: tuple[int, int]) -> Regions:
        """Pool feature maps.

        Args:
            maps: (N, C, h, w) float32.
            image_size: height and width of the network's input in pixels.
        """

    @abstractmethod
    def coverage(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return (R, h · w) float32, 1 where a region covers a cell of the map and 0 elsewhere."""

    def attention_map(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the mean weight of the regions that cover each cell.

        Args:
            maps: (N, C, h, w) float32.
            image_size: height and width of the network's input in pixels.

        Returns:
            (N, h, w) float32. A cell that no region covers is 0: it has no part in the descriptor. R-MAC has
            such cells only in images more than seven times as long as wide.
        """
        weights = self(maps, image_size).weights
        covers = self.coverage(maps, image_size)
        regions = covers.sum(0).clamp(min=1)  # without a region, the sum of weights is 0 as well
        return (weights @ covers / regions).unflatten(1, maps.shape[-2:])
