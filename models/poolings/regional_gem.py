"""Regional GeM: the generalised mean of each channel over each R-MAC region, all regions with weight 1.

Regions: Tolias, Sicre and Jégou, ICLR 2016. Generalised mean: Radenović, Tolias and Chum, TPAMI 2019.
"""

from typing import ClassVar, Self

from torch import Tensor

from models.poolings.gem import DEFAULT_P, check_p, generalized_mean, positive
from models.poolings.pooling import PoolingParts
from models.poolings.region_pooling import CellGrid, reduce_regions
from models.poolings.rmac import RMAC


class RegionalGeM(RMAC):
    """GeM pooling over the regions of `rmac_regions`.

    Args:
        levels: L, the number of levels of the grid.
        stride: pixels per cell of the feature map.
        p: the exponent of GeM.

    Raises:
        ValueError: the number of levels is not from 1 to MAX_LEVELS, or p is not from 1 to LARGEST_P.
    """

    name: ClassVar[str] = "rgem"
    options: ClassVar[frozenset[str]] = RMAC.options | {"gem_p"}

    def __init__(self, levels: int, stride: int, p: float = DEFAULT_P) -> None:
        super().__init__(levels, stride)
        check_p(p)
        self.p = p

    @classmethod
    def build(cls, parts: PoolingParts) -> Self:
        """Return the pooling with the grid and the exponent of the parts."""
        return cls(parts.levels, parts.stride, parts.gem_p)

    def vectors(self, maps: Tensor, grid: CellGrid) -> Tensor:
        """Return the generalised mean of each region, (N, R, C); 0 for a region without cells."""

        def generalized_mean_over(values: Tensor, dim: int) -> Tensor:
            return generalized_mean(values, self.p, (dim,))

        # The generalised mean of the generalised means of columns of equal length is that of all their cells.
        return reduce_regions(positive(maps), grid, generalized_mean_over)
