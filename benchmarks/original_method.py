"""The method as the original computes it, one region at a time: the baseline of the benchmarks."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.regions import rmac_regions
from models.whitening import Whitening


def weighted_regions(
    features: Tensor, image_size: tuple[int, int], levels: int, attention: ContextAwareRegionalAttention
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the maximum (N, C) and the weight (N, 1) of each region of feature maps (N, C, h, w)."""
    context = features.mean((2, 3))
    for x, y, w, h in rmac_regions(*image_size, levels):
        left, top, right, bottom = np.rint(np.array([x, y, x + w - 1, y + h - 1]) / 32).astype(int)
        cells = features[:, :, top : bottom + 1, left : right + 1]
        both = torch.cat([cells.mean((2, 3)), context], dim=1).unsqueeze(2)
        hidden = attention.activation(attention.conv_att_1(both))
        yield cells.amax((2, 3)), F.softplus(attention.conv_att_2(hidden)).squeeze(2)


def pooled_regions(
    features: Tensor, image_size: tuple[int, int], levels: int, attention: ContextAwareRegionalAttention
) -> Tensor:
    """Return the mean (N, C) of the weighted maxima, the input of the classifier in training."""
    weighted = [
        weight * maximum for maximum, weight in weighted_regions(features, image_size, levels, attention)
    ]
    return torch.stack(weighted).mean(0)


def describe_map(
    features: Tensor,
    image_size: tuple[int, int],
    levels: int,
    attention: ContextAwareRegionalAttention,
    whitening: Whitening,
) -> Tensor:
    """Return the descriptor (D,) of one image from its feature map (1, C, h, w)."""
    weighted = [
        weight * F.normalize(whitening(maximum), dim=1)
        for maximum, weight in weighted_regions(features, image_size, levels, attention)
    ]
    return F.normalize(torch.stack(weighted).mean(0)[0], dim=0)


def describe(
    backbone: nn.Module, images: Tensor, attention: ContextAwareRegionalAttention, whitening: Whitening
) -> Tensor:
    """Return the descriptor (D,) of one preprocessed image (1, 3, H, W), with five levels of regions."""
    height, width = images.shape[-2:]
    return describe_map(backbone(images), (height, width), 5, attention, whitening)
