"""The network that the attention head is trained in: weighted regions, averaged, seen by a frozen classifier.

Kim and Yoon, BMVC 2018, section 3.3: the weights that make an image's regions recognisable for what ImageNet
says they show are those that make it retrievable.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import ContextAwareRegionalAttention
from models.backbone import Backbone
from models.poolings.rmac import RMAC
from models.region_pooling import region_max, region_mean


class RegionFeatures(NamedTuple):
    """All that the head and the classifier need to know of N images: the backbone's work, done."""

    maxima: Tensor
    """(N, R, C), each region's maximum."""
    means: Tensor
    """(N, R, C), each region's mean."""
    context: Tensor
    """(N, C), the mean over the whole map."""


@torch.inference_mode()
def region_features(backbone: Backbone, images: Tensor, levels: int, batch_size: int) -> RegionFeatures:
    """Return the region features of images by a frozen backbone, without gradients.

    Args:
        backbone: in evaluation mode.
        images: (N, 3, H, W) of one size, prepared by `backbone.prepare`.
        levels: L, the number of R-MAC levels.
        batch_size: images that the backbone is given at a time, which bounds the memory.

    Returns:
        float32 features.
    """
    height, width = images.shape[-2:]
    regions = RMAC(levels, backbone.stride)
    parts = []
    for part in images.split(batch_size):
        maps = backbone(part)
        grid = regions.grid(maps, (height, width))
        parts.append(RegionFeatures(region_max(maps, grid), region_mean(maps, grid), maps.mean((2, 3))))
    return RegionFeatures(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class AttentionClassifier(nn.Module):
    """Class scores of images from their regions; only the head has parameters.

    Args:
        attention: the head, which learns.
        weight: (K, C), the frozen classifier's weight.
        bias: (K,), its bias.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, attention: ContextAwareRegionalAttention, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: RegionFeatures) -> Tensor:
        """Scores (N, K): the classifier's of the mean of the regions' maxima times their weights."""
        # A region without a cell has no mean. Nor has one whose cells are all 0, as ReLU leaves some: its
        # maximum is 0 then, so that its weight does not matter.
        occupied = features.means.any(2)
        weights = self.attention(features.means, features.context, occupied)
        pooled = (weights.unsqueeze(1) @ features.maxima).squeeze(1) / weights.shape[1]
        return F.linear(pooled, self.weight, self.bias)

    def uniform(self, features: RegionFeatures) -> Tensor:
        """Scores (N, K) with every weight 1: what the head has to beat."""
        return F.linear(features.maxima.mean(1), self.weight, self.bias)
