"""MAC: the maximum of each channel over the entire feature map.

Tolias, Sicre and Jégou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR
2016, section 3.1.
"""

from typing import ClassVar

from torch import Tensor

from models.poolings.pooling import GlobalPooling


class MAC(GlobalPooling):
    """MAC pooling."""

    name: ClassVar[str] = "mac"

    def pool(self, maps: Tensor) -> Tensor:
        """Return the maximum of each channel, (N, C)."""
        return maps.amax((2, 3))
