"""MAC: the maximum of each channel over the entire feature map.

Tolias, Sicre and Jégou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR
2016, section 3.1.
"""

from typing import ClassVar

from torch import Tensor

from models.poolings.pooling import Pooling, Regions


class MAC(Pooling):
    """MAC pooling: a single region that covers the entire map."""

    name: ClassVar[str] = "mac"

    def forward(self, maps: Tensor, image_size: tuple[int, int]) -> Regions:
        """Return the maximum of each channel, (N, 1, C), with weight 1."""
        vectors = maps.amax((2, 3)).unsqueeze(1)
        return Regions(vectors, vectors.new_ones(vectors.shape[:2]))

    def coverage(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return ones, (1, h · w)."""
        return maps.new_ones(1, maps.shape[2] * maps.shape[3])
