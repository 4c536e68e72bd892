"""Pooling of a feature map over the R-MAC regions: one maximum and one mean a region and channel.

The regions of a level are all pairs of a few row ranges and a few column ranges. So the maximum is taken in
two passes, first down the rows of each row range, then along the columns of each column range, and the mean
is one matrix product: no work is done a region, let alone a region and image.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models.regions import rmac_levels

Range = tuple[int, int]
"""First cell and the cell behind the last; empty where the second is not greater than the first."""


@dataclass(frozen=True)
class CellLevel:
    """One level of the grid on the feature map: every pair of a row range and a column range is a region."""

    rows: tuple[Range, ...]
    columns: tuple[Range, ...]


@dataclass(frozen=True)
class CellGrid:
    """The regions of `rmac_regions`, in its order, on a feature map of `height` × `width` cells."""

    height: int
    width: int
    levels: tuple[CellLevel, ...]

    @property
    def regions(self) -> int:
        """R, the number of regions."""
        return sum(len(level.rows) * len(level.columns) for level in self.levels)


@lru_cache(maxsize=1024)
def cell_grid(image_size: Range, map_size: Range, levels: int, stride: int) -> CellGrid:
    """The R-MAC regions of an image, laid on its feature map; computed once for each size.

    A region covers the pixels x .. x + w - 1; its first and last pixel over `stride`, rounded to nearest
    (halves to even), are its first and last cell, clipped to the map.

    Args:
        image_size: height and width of the network's input in pixels.
        map_size: height and width of the feature map in cells.
        levels: number of R-MAC levels.
        stride: pixels a cell, 32 for every backbone here.

    Returns:
        The grid; a range is empty where a region has no cell left on the map.
    """

    def cells(starts: tuple[int, ...], side: int, length: int) -> tuple[Range, ...]:
        first = np.rint(np.array(starts) / stride).astype(int)
        behind = np.rint((np.array(starts) + side - 1) / stride).astype(int) + 1
        return tuple(zip(first.clip(0, length).tolist(), behind.clip(0, length).tolist(), strict=True))

    height, width = map_size
    return CellGrid(
        height,
        width,
        tuple(
            CellLevel(cells(level.ys, level.side, height), cells(level.xs, level.side, width))
            for level in rmac_levels(*image_size, levels)
        ),
    )


def region_max(features: Tensor, grid: CellGrid) -> Tensor:
    """Maximum of each channel over each region; zero for a region without a cell.

    Args:
        features: (N, C, h, w) feature maps; fastest in channels_last.
        grid: the regions, of a map of h × w cells.

    Returns:
        (N, R, C), of the features' type.
    """
    cells = features.permute(0, 2, 3, 1).contiguous()
    pooled = []
    for level in grid.levels:
        bands = torch.stack([_range_max(cells, rows, dim=1) for rows in level.rows], dim=1)
        regions = torch.stack([_range_max(bands, columns, dim=2) for columns in level.columns], dim=2)
        pooled.append(regions.flatten(1, 2))
    return torch.cat(pooled, dim=1)


def region_mean(features: Tensor, grid: CellGrid) -> Tensor:
    """Mean of each channel over each region; zero for a region without a cell.

    Args:
        features: (N, C, h, w) feature maps; fastest in channels_last.
        grid: the regions, of a map of h × w cells.

    Returns:
        (N, R, C), of the features' type.
    """
    cells = features.permute(0, 2, 3, 1).flatten(1, 2)
    return averaging_matrix(grid, features.device, features.dtype) @ cells


def has_cells(grid: CellGrid, device: torch.device) -> Tensor:
    """Return which regions cover a cell, (R,) bool; on inputs of some 30 to 50 pixels some cover none."""
    return averaging_matrix(grid, device, torch.float32).any(1)


def _range_max(x: Tensor, cells: Range, dim: int) -> Tensor:
    """Maximum of x over the cells of a range along a dimension, which goes away; zeros for an empty range."""
    first, behind = cells
    if behind <= first:
        return torch.zeros_like(x.select(dim, 0))
    return x.narrow(dim, first, behind - first).amax(dim)


@lru_cache(maxsize=256)
def averaging_matrix(grid: CellGrid, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(R, h·w) matrix whose product with a map's cells is each region's mean, 0 off the region."""
    rows = []
    for level in grid.levels:
        for top, below in level.rows:
            for left, right in level.columns:
                row = np.zeros((grid.height, grid.width), np.float32)
                cells = row[top:below, left:right]
                cells[...] = 1 / max(cells.size, 1)
                rows.append(row.ravel())
    with torch.inference_mode(False):  # or a matrix first made in an evaluation would fail in training
        return torch.from_numpy(np.stack(rows)).to(device, dtype)
