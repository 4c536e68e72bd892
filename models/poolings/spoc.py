"""SPoC: the mean of each channel over the entire feature map.

Babenko and Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015, without
the centre prior. The paper takes the sum. The mean has the same direction, and does not depend on the size of
the map, which matters if a whitening subtracts its mean.
"""

from typing import ClassVar

from torch import Tensor

from models.poolings.pooling import GlobalPooling


class SPoC(GlobalPooling):
    """SPoC pooling."""

    name: ClassVar[str] = "spoc"

    def pool(self, maps: Tensor) -> Tensor:
        """Return the mean of each channel, (N, C)."""
        return maps.mean((2, 3))
