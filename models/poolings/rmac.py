"""R-MAC: the maximum of each channel over each region of a multi-scale grid, all regions with weight 1.

Tolias, Sicre and Jégou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR
2016, section 3.2.
"""

from typing import ClassVar, Self

from torch import Tensor

from models.poolings.pooling import Pooling, PoolingParts, Regions
from models.poolings.region_pooling import CellGrid, averaging_matrix, cell_grid, region_max
from models.poolings.regions import check_levels


class RMAC(Pooling):
    """R-MAC pooling over the regions of `rmac_regions`.

    Args:
        levels: L, the number of levels of the grid.
        stride: pixels per cell of the feature map.

    Raises:
        ValueError: the number of levels is not from 1 to MAX_LEVELS.
    """

    name: ClassVar[str] = "rmac"
    options: ClassVar[frozenset[str]] = frozenset({"L"})

    def __init__(self, levels: int, stride: int) -> None:
        super().__init__()
        check_levels(levels)
        self.levels = levels
        self.stride = stride

    @classmethod
    def build(cls, parts: PoolingParts) -> Self:
        """Return the pooling with the grid of the parts."""
        return cls(parts.levels, parts.stride)

    def forward(self, maps: Tensor, image_size: tuple[int, int]) -> Regions:
        """Return the vectors of `vectors` with the weights of `weights`."""
        grid = self.grid(maps, image_size)
        return Regions(self.vectors(maps, grid), self.weights(maps, grid))

    def vectors(self, maps: Tensor, grid: CellGrid) -> Tensor:
        """Return the maximum of each region, (N, R, C); 0 for a region without cells."""
        return region_max(maps, grid)

    def weights(self, maps: Tensor, grid: CellGrid) -> Tensor:
        """Return the weights of the regions, (N, R), all 1."""
        return maps.new_ones(len(maps), grid.regions)

    def grid(self, maps: Tensor, image_size: tuple[int, int]) -> CellGrid:
        """Return the regions as ranges of cells of the maps."""
        height, width = maps.shape[-2:]
        return cell_grid(image_size, (height, width), self.levels, self.stride)

    def coverage(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return (R, h · w), 1 if the region covers the cell and 0 otherwise."""
        matrix = averaging_matrix(self.grid(maps, image_size), maps.device, maps.dtype)
        return (matrix > 0).to(maps.dtype)
