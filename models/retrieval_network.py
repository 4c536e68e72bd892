"""The method from input to descriptor: backbone, regions, attention, whitening, weighted average."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import ContextAwareRegionalAttention
from models.region_pooling import CellGrid, cell_grid, has_cells, region_max, region_mean
from models.regions import check_levels
from models.whitening import Whitening

Pooling = Literal["ra", "rmac", "mac"]


def resize(images: Tensor, scale: float) -> Tensor:
    """Resizes (N, 3, H, W) images bilinearly; no side gets less than a pixel."""
    if scale == 1:
        return images
    size = [max(round(side * scale), 1) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def mean_direction(found: Sequence[Tensor]) -> Tensor:
    """The direction, of length 1, of the mean of some (..., D) vectors; a single one as it is."""
    return found[0] if len(found) == 1 else F.normalize(torch.stack(list(found)).sum(0), dim=-1)


class RetrievalNetwork(nn.Module):
    """Describes each image by one vector of length 1.

    Args:
        backbone: (N, 3, H, W) -> (N, C, h, w).
        stride: pixels a cell of the backbone's map.
        pooling: `ra` weighs the R-MAC regions by attention, `rmac` weighs them alike, `mac` has one region,
            the whole map.
        levels: L, the number of R-MAC levels.
        attention: the head; needed for `ra`, unused otherwise.
        whitening: PCA of the region vectors, or None to leave them as they are.
        scales: factors that an image is resized by; its descriptors at all of them are averaged.

    Raises:
        ValueError: `ra` without a head, or a number of levels that is not from 1 to 30.
    """

    def __init__(
        self,
        backbone: nn.Module,
        stride: int,
        pooling: Pooling = "ra",
        levels: int = 5,
        attention: ContextAwareRegionalAttention | None = None,
        whitening: Whitening | None = None,
        scales: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        if pooling == "ra" and attention is None:
            raise ValueError("pooling 'ra' needs an attention head")
        check_levels(levels)
        self.backbone = backbone
        self.stride = stride
        self.pooling = pooling
        self.levels = levels
        self.attention = attention
        self.whitening = whitening
        self.scales = tuple(scales)

    def forward(self, images: Tensor) -> Tensor:
        """Describes images of one size.

        Args:
            images: (N, 3, H, W), prepared as the backbone's entry says.

        Returns:
            (N, D) float32, each of Euclidean length 1.
        """
        return mean_direction([self.describe_once(resize(images, scale)) for scale in self.scales])

    def describe_once(self, images: Tensor) -> Tensor:
        """Describes images of one size, (N, 3, H, W) -> (N, D), as they are."""
        height, width = images.shape[-2:]
        return self.describe_maps(self.backbone(images), (height, width))

    def describe_maps(self, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Describes images by their feature maps, (N, C, h, w) -> (N, D); `image_size` is the input's (H, W).

        The head computes in float32 whatever the backbone's precision: it costs next to nothing and its sums
        are long.
        """
        features = features.float()
        if self.pooling == "mac":
            regions = features.amax((2, 3)).unsqueeze(1)
            weights = torch.ones_like(regions[..., 0])
        else:
            map_height, map_width = features.shape[-2:]
            grid = cell_grid(image_size, (map_height, map_width), self.levels, self.stride)
            regions = region_max(features, grid)
            weights = self.region_weights(features, grid)
        if self.whitening is not None:
            regions = self.whitening(regions)
        regions = F.normalize(regions, dim=2)
        descriptors = (weights.unsqueeze(1) @ regions).squeeze(1) / weights.shape[1]
        return F.normalize(descriptors, dim=1)

    def region_weights(self, features: Tensor, grid: CellGrid) -> Tensor:
        """Weight of each R-MAC region, greater than 0, (N, R): the head's for `ra`, 1 otherwise.

        Args:
            features: (N, C, h, w) float32 feature maps.
            grid: the regions, of a map of h × w cells.
        """
        if self.pooling == "ra":
            occupied = has_cells(grid, features.device)
            return self.attention(region_mean(features, grid), features.mean((2, 3)), occupied)
        regions = sum(len(level.rows) * len(level.columns) for level in grid.levels)
        return features.new_ones(len(features), regions)
