"""Regional attention: R-MAC regions weighted by the context-aware attention head.

Kim and Yoon, "Regional Attention Based Deep Feature for Image Retrieval", BMVC 2018, section 3.
"""

from typing import ClassVar, Self

from torch import Tensor

from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.pooling import PoolingParts
from models.poolings.region_pooling import CellGrid, has_cells, region_mean
from models.poolings.rmac import RMAC


class RegionalAttention(RMAC):
    """R-MAC regions with learned weights.

    Args:
        levels: L, the number of levels of the grid.
        stride: pixels per cell of the feature map.
        attention: the attention head.
    """

    name: ClassVar[str] = "ra"
    has_attention: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = RMAC.options | {"activation"}

    def __init__(self, levels: int, stride: int, attention: ContextAwareRegionalAttention) -> None:
        super().__init__(levels, stride)
        self.attention = attention

    @classmethod
    def build(cls, parts: PoolingParts) -> Self:
        """Return the pooling with the grid and the attention head of the parts.

        Raises:
            ValueError: there is no attention head.
        """
        if parts.attention is None:
            raise ValueError("regional attention needs an attention head")
        return cls(parts.levels, parts.stride, parts.attention)

    def weights(self, maps: Tensor, grid: CellGrid) -> Tensor:
        """Return the weights of the attention head, (N, R), greater than 0."""
        occupied = has_cells(grid, maps.device)
        weights: Tensor = self.attention(region_mean(maps, grid), maps.mean((2, 3)), occupied)
        return weights
