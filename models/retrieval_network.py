"""The network from images to descriptors: backbone, poolings, whitening, weighted mean."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.poolings.pooling import Pooling, Regions
from models.whitening import Whitening


class RetrievalNetwork(nn.Module):
    """Describe each image by one vector of length 1 per pooling.

    Args:
        backbone: the frozen network from pixels to feature maps.
        poolings: one or more poolings of the same feature maps.
        whitening: PCA whitening of the region vectors; None for no whitening.
        scales: factors to resize each image by; the descriptors of all scales are averaged.
    """

    def __init__(
        self,
        backbone: Backbone,
        poolings: Sequence[Pooling],
        whitening: Whitening | None = None,
        scales: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.poolings = nn.ModuleList(poolings)
        self.whitening = whitening
        self.scales = tuple(scales)

    def forward(self, images: Tensor) -> Tensor:
        """Describe images of one size.

        Args:
            images: (N, 3, H, W), prepared by `backbone.prepare`.

        Returns:
            (N, P, D) float32 for P poolings, each vector of Euclidean length 1.
        """
        descriptors = []
        for scale in self.scales:
            resized = resize(images, scale)
            height, width = resized.shape[-2:]
            descriptors.append(self.describe_maps(self.backbone(resized), (height, width)))
        return mean_direction(descriptors)

    def describe_maps(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Describe images by their feature maps.

        Args:
            maps: (N, C, h, w) float32.
            image_size: height and width of the network's input in pixels.

        Returns:
            (N, P, D) float32, each vector of Euclidean length 1.
        """
        descriptors = []
        for pooling in self.poolings:
            descriptors.append(weighted_mean(self._whitened_regions(pooling, maps, image_size)))
        return torch.stack(descriptors, dim=1)

    def describe_with_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the descriptors and the attention map of images of one size, by one pass.

        The scales of the network are not applied.

        Args:
            images: (N, 3, H, W), prepared by `backbone.prepare`.

        Returns:
            Descriptors (N, P, D), as returned by `describe_maps`, and maps (N, h, w), as returned by
            `attention_map`.

        Raises:
            ValueError: no pooling has learned weights.
        """
        maps, (height, width) = self.backbone(images), images.shape[-2:]
        descriptors, attention = [], None
        for pooling in self.poolings:
            regions = self._whitened_regions(pooling, maps, (height, width))
            descriptors.append(weighted_mean(regions))
            if pooling is self.attention_pooling:
                attention = self.attention_pooling.weight_map(regions.weights, maps, (height, width))
        if attention is None:
            raise ValueError("the network has no pooling with attention")
        return torch.stack(descriptors, dim=1), attention

    def region_vectors(self, images: Tensor) -> Tensor:
        """Return the region vectors of the first pooling, (N, R, C), neither whitened nor normalised.

        The whitening is fitted on these vectors.

        Args:
            images: (N, 3, H, W) of one size, prepared by `backbone.prepare`.
        """
        height, width = images.shape[-2:]
        vectors: Tensor = self.poolings[0](self.backbone(images), (height, width)).vectors
        return vectors

    def weighted_regions(self, images: Tensor, pooling: int = 0) -> Tensor:
        """Return the region vectors whose weighted mean is the descriptor, and their weights.

        The scales of the network are not applied.

        Args:
            images: (N, 3, H, W) of one size, prepared by `backbone.prepare`.
            pooling: index of the pooling.

        Returns:
            (N, R, D + 1) float32: the whitened vector of each region, of Euclidean length 1, then its weight.
        """
        height, width = images.shape[-2:]
        regions = self._whitened_regions(self.poolings[pooling], self.backbone(images), (height, width))
        return torch.cat([regions.vectors, regions.weights.unsqueeze(2)], dim=2)

    def _whitened_regions(self, pooling: nn.Module, maps: Tensor, image_size: tuple[int, int]) -> Regions:
        """Return the regions of a pooling with whitened vectors of Euclidean length 1."""
        vectors, weights = pooling(maps, image_size)
        if self.whitening is not None:
            vectors = self.whitening(vectors)
        return Regions(F.normalize(vectors, dim=2), weights)

    @property
    def attention_pooling(self) -> Pooling | None:
        """The first pooling with learned weights, or None."""
        poolings = (pooling for pooling in self.poolings if isinstance(pooling, Pooling))
        return next((pooling for pooling in poolings if pooling.has_attention), None)

    def attention_map(self, images: Tensor) -> Tensor:
        """Return the mean attention weight of the regions that cover each cell of the backbone's map.

        The scales of the network are not applied.

        Args:
            images: (N, 3, H, W) of one size, prepared by `backbone.prepare`.

        Returns:
            (N, h, w) float32, as returned by `Pooling.attention_map`.

        Raises:
            ValueError: no pooling has learned weights.
        """
        pooling = self.attention_pooling
        if pooling is None:
            raise ValueError("the network has no pooling with attention")
        height, width = images.shape[-2:]
        return pooling.attention_map(self.backbone(images), (height, width))


def weighted_mean(regions: Regions) -> Tensor:
    """Return the weighted mean of region vectors, normalised to length 1, (N, D)."""
    vectors, weights = regions
    mean = (weights.unsqueeze(1) @ vectors).squeeze(1) / weights.shape[1]
    return F.normalize(mean, dim=1)


def resize(images: Tensor, scale: float) -> Tensor:
    """Resize images, (N, 3, H, W), bilinearly by a factor; each side keeps at least one pixel."""
    if scale == 1:
        return images
    size = [max(round(side * scale), 1) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def mean_direction(descriptors: Sequence[Tensor]) -> Tensor:
    """Return the mean of vectors, (..., D), normalised to length 1; a single vector is returned unchanged."""
    if len(descriptors) == 1:
        return descriptors[0]
    return F.normalize(torch.stack(list(descriptors)).sum(0), dim=-1)
