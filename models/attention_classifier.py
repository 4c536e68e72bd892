"""The network that trains the attention head: a frozen classifier of the weighted mean of an image's regions.

Kim and Yoon, "Regional Attention Based Deep Feature for Image Retrieval", BMVC 2018, section 3.3. Region
weights that help to classify images of ImageNet also help to retrieve images.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.region_pooling import region_max, region_mean
from models.poolings.rmac import RMAC


class RegionFeatures(NamedTuple):
    """Features of N images by the frozen backbone: the inputs of the head and the classifier."""

    maxima: Tensor
    """(N, R, C), the maximum of each region."""
    means: Tensor
    """(N, R, C), the mean of each region."""
    context: Tensor
    """(N, C), the mean of the entire feature map."""


@torch.inference_mode()
def region_features(backbone: Backbone, images: Tensor, levels: int, batch_size: int) -> RegionFeatures:
    """Return the region features of images, without gradients.

    Args:
        backbone: the frozen backbone, in evaluation mode.
        images: (N, 3, H, W) of one size, prepared by `backbone.prepare`.
        levels: L, the number of R-MAC levels.
        batch_size: number of images per pass through the backbone; bounds the memory.

    Returns:
        The features in float32.
    """
    height, width = images.shape[-2:]
    regions = RMAC(levels, backbone.stride)
    parts = []
    for part in images.split(batch_size):
        maps = backbone(part)
        grid = regions.grid(maps, (height, width))
        parts.append(RegionFeatures(region_max(maps, grid), region_mean(maps, grid), maps.mean((2, 3))))
    return RegionFeatures(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def mean_of_maxima(features: RegionFeatures) -> Tensor:
    """Return the mean of the region maxima, (N, C): the input of the classifier if all weights are 1."""
    return features.maxima.mean(1)


class AttentionClassifier(nn.Module):
    """Class scores of images from their region features; only the head has parameters.

    Args:
        attention: the head, which is trained.
        weight: (K, C), the weight of the frozen classifier.
        bias: (K,), the bias of the frozen classifier.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, attention: ContextAwareRegionalAttention, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: RegionFeatures) -> Tensor:
        """Return the class scores, (N, K), of the mean of the weighted region maxima."""
        # A mean of 0 marks a region without cells. After ReLU, a region with cells can have a mean of 0, too.
        # Its maximum is then also 0, so its weight has no effect.
        occupied = features.means.any(2)
        weights = self.attention(features.means, features.context, occupied)
        pooled = (weights.unsqueeze(1) @ features.maxima).squeeze(1) / weights.shape[1]
        return F.linear(pooled, self.weight, self.bias)

    def uniform(self, features: RegionFeatures) -> Tensor:
        """Return the class scores, (N, K), with all weights 1: the baseline of the training."""
        return F.linear(mean_of_maxima(features), self.weight, self.bias)
