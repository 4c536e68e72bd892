"""The vectors that the whitening is learned from: each region's maximum, neither whitened nor normalised."""

from torch import Tensor, nn

from models.region_pooling import cell_grid, region_max


class RegionMaxima(nn.Module):
    """Region vectors of images.

    Args:
        backbone: (N, 3, H, W) -> (N, C, h, w).
        stride: pixels a cell of the backbone's map.
        levels: L, the number of R-MAC levels.
    """

    def __init__(self, backbone: nn.Module, stride: int, levels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.stride = stride
        self.levels = levels

    def forward(self, images: Tensor) -> Tensor:
        """Maxima (N, R, C), float32, of images (N, 3, H, W) of one size, prepared for the backbone."""
        height, width = images.shape[-2:]
        features = self.backbone(images).float()
        map_height, map_width = features.shape[-2:]
        grid = cell_grid((height, width), (map_height, map_width), self.levels, self.stride)
        return region_max(features, grid)
