"""Pooling of a feature map over the R-MAC regions: one maximum, mean or other value per region and channel.

The regions of a level are all pairs of a few row ranges and a few column ranges. The maximum is computed in
two passes: over the rows of each row range, then over the columns of each column range. The mean is one
matrix product. Both avoid a loop over regions and images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models.poolings.regions import rmac_levels

Range = tuple[int, int]
"""Start and stop of a range of cells; empty if stop <= start."""

Reduction = Callable[[Tensor, int], Tensor]
"""A function of a tensor and one of its dimensions, which it removes."""


@dataclass(frozen=True)
class CellLevel:
    """One level of the grid on the feature map: each pair of a row range and a column range is a region."""

    rows: tuple[Range, ...]
    columns: tuple[Range, ...]


@dataclass(frozen=True)
class CellGrid:
    """The regions of `rmac_regions`, in the same order, on a feature map of `height` × `width` cells."""

    height: int
    width: int
    levels: tuple[CellLevel, ...]

    @property
    def regions(self) -> int:
        """The number of regions, R."""
        return sum(len(level.rows) * len(level.columns) for level in self.levels)


@lru_cache(maxsize=1024)
def cell_grid(image_size: Range, map_size: Range, levels: int, stride: int) -> CellGrid:
    """Return the R-MAC regions of an image as cells of its feature map; cached per size.

    A region covers the pixels x to x + w - 1. Its first and last cell are its first and last pixel divided by
    `stride`, rounded to nearest (halves to even) and clipped to the map.

    Args:
        image_size: height and width of the network's input in pixels.
        map_size: height and width of the feature map in cells.
        levels: number of R-MAC levels.
        stride: pixels per cell of the feature map.

    Returns:
        The grid. A range is empty if its regions have no cells on the map.
    """

    def cells(starts: tuple[int, ...], side: int, length: int) -> tuple[Range, ...]:
        first = np.rint(np.array(starts) / stride).astype(int)
        stop = np.rint((np.array(starts) + side - 1) / stride).astype(int) + 1
        return tuple(zip(first.clip(0, length).tolist(), stop.clip(0, length).tolist(), strict=True))

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
    """Return the maximum of each channel over each region; 0 for a region without cells.

    Args:
        features: (N, C, h, w) feature maps; fastest in channels_last.
        grid: the regions on a map of h × w cells.

    Returns:
        (N, R, C), in the number type of `features`.
    """
    return reduce_regions(features, grid, torch.amax)


def reduce_regions(features: Tensor, grid: CellGrid, reduction: Reduction) -> Tensor:
    """Return a value of each channel over each region; 0 for a region without cells.

    Args:
        features: (N, C, h, w) feature maps; fastest in channels_last.
        grid: the regions on a map of h × w cells.
        reduction: the value of several cells. As with a maximum, the reduction of the reductions of columns
            of equal length must be the reduction of all their cells.

    Returns:
        (N, R, C), in the number type of `features`.
    """
    cells = features.permute(0, 2, 3, 1).contiguous()
    pooled = []
    for level in grid.levels:
        bands = torch.stack([_reduce_range(cells, rows, 1, reduction) for rows in level.rows], dim=1)
        regions = torch.stack(
            [_reduce_range(bands, columns, 2, reduction) for columns in level.columns], dim=2
        )
        pooled.append(regions.flatten(1, 2))
    return torch.cat(pooled, dim=1)


def region_mean(features: Tensor, grid: CellGrid) -> Tensor:
    """Return the mean of each channel over each region; 0 for a region without cells.

    Args:
        features: (N, C, h, w) feature maps; fastest in channels_last.
        grid: the regions on a map of h × w cells.

    Returns:
        (N, R, C), in the number type of `features`.
    """
    cells = features.permute(0, 2, 3, 1).flatten(1, 2)
    return averaging_matrix(grid, features.device, features.dtype) @ cells


def has_cells(grid: CellGrid, device: torch.device) -> Tensor:
    """Return (R,) bool, true for regions with at least one cell.

    Images of about 30 to 50 pixels have regions without cells.
    """
    return averaging_matrix(grid, device, torch.float32).any(1)


def _reduce_range(x: Tensor, cells: Range, dim: int, reduction: Reduction) -> Tensor:
    """Return a value of x over a range of a dimension, which is removed; 0 for an empty range."""
    first, stop = cells
    if stop <= first:
        return torch.zeros_like(x.select(dim, 0))
    return reduction(x.narrow(dim, first, stop - first), dim)


@lru_cache(maxsize=256)
def averaging_matrix(grid: CellGrid, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (R, h · w) matrix that maps the cells of a feature map to the mean of each region."""
    rows = []
    for level in grid.levels:
        for top, below in level.rows:
            for left, right in level.columns:
                row = np.zeros((grid.height, grid.width), np.float32)
                cells = row[top:below, left:right]
                cells[...] = 1 / max(cells.size, 1)
                rows.append(row.ravel())
    with torch.inference_mode(False):  # a cached inference tensor would fail in training
        return torch.from_numpy(np.stack(rows)).to(device, dtype)
