"""The interface of all poolings, from feature maps to regions with a vector and a weight each."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Self

from torch import Tensor, nn

from models.poolings.attention_head import ContextAwareRegionalAttention


class Regions(NamedTuple):
    """The pooled regions of N feature maps."""

    vectors: Tensor
    """(N, R, C), one vector per region."""
    weights: Tensor
    """(N, R), greater than 0."""


class PoolingParts(NamedTuple):
    """Everything that poolings are built from; each pooling takes the parts that it needs."""

    levels: int
    """L, the number of R-MAC levels."""
    stride: int
    """Pixels per cell of the feature map."""
    gem_p: float
    """p, the exponent of GeM."""
    attention: ContextAwareRegionalAttention | None = None
    """The attention head; None if no pooling has attention."""


class Pooling(nn.Module, ABC):
    """Base class of poolings of feature maps.

    A descriptor is the weighted mean of the region vectors after whitening and L2 normalisation.
    """

    name: ClassVar[str]
    """The name of the pooling on the command line."""

    has_attention: ClassVar[bool] = False
    """True if the weights are learned and differ between regions."""

    options: ClassVar[frozenset[str]] = frozenset()
    """The names of the options that the vectors or weights depend on."""

    @classmethod
    @abstractmethod
    def build(cls, parts: PoolingParts) -> Self:
        """Return the pooling, built from the parts that it needs.

        Raises:
            ValueError: a part is missing or not valid.
        """

    @abstractmethod
    def forward(self, maps: Tensor, image_size: tuple[int, int]) -> Regions:
        """Pool feature maps.

        Args:
            maps: (N, C, h, w) float32.
            image_size: height and width of the network's input in pixels.
        """

    @abstractmethod
    def coverage(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return (R, h · w) float32, 1 if the region covers the cell and 0 otherwise."""

    def attention_map(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the mean weight of the regions that cover each cell.

        Args:
            maps: (N, C, h, w) float32.
            image_size: height and width of the network's input in pixels.

        Returns:
            (N, h, w) float32, 0 for a cell that no region covers. With R-MAC, only images more than seven
            times as long as wide have such cells.
        """
        return self.weight_map(self(maps, image_size).weights, maps, image_size)

    def weight_map(self, weights: Tensor, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the `attention_map` for weights of the regions that are known.

        Args:
            weights: (N, R).
            maps: (N, C, h, w) float32.
            image_size: height and width of the network's input in pixels.
        """
        covers = self.coverage(maps, image_size)
        regions = covers.sum(0).clamp(min=1)  # avoids 0 / 0 in cells without a region
        return (weights @ covers / regions).unflatten(1, maps.shape[-2:])


class GlobalPooling(Pooling):
    """Base class of poolings with a single region of weight 1, which covers the entire map."""

    @classmethod
    def build(cls, parts: PoolingParts) -> Self:
        """Return the pooling, which needs no parts."""
        return cls()

    @abstractmethod
    def pool(self, maps: Tensor) -> Tensor:
        """Return one vector per feature map, (N, C)."""

    def forward(self, maps: Tensor, image_size: tuple[int, int]) -> Regions:
        """Return the vector of the entire map, (N, 1, C), with weight 1."""
        vectors = self.pool(maps).unsqueeze(1)
        return Regions(vectors, vectors.new_ones(vectors.shape[:2]))

    def coverage(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return ones, (1, h · w)."""
        return maps.new_ones(1, maps.shape[2] * maps.shape[3])
