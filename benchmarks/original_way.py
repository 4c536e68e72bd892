"""The method the way the original computes it: one image, one region at a time. The baseline, kept plain."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import ContextAwareRegionalAttention
from models.regions import rmac_regions
from models.whitening import Whitening


def describe_map(
    features: Tensor,
    image_size: tuple[int, int],
    levels: int,
    attention: ContextAwareRegionalAttention,
    whitening: Whitening,
) -> Tensor:
    """Descriptor (D,) of one image from its feature map (1, C, h, w)."""
    context = features.mean((2, 3))
    descriptor = torch.zeros(whitening.components.shape[0])
    regions = rmac_regions(*image_size, levels)
    for x, y, w, h in regions:
        left, top, right, bottom = np.rint(np.array([x, y, x + w - 1, y + h - 1]) / 32).astype(int)
        cells = features[:, :, top : bottom + 1, left : right + 1]
        vector = F.normalize(whitening(cells.amax((2, 3))), dim=1)
        both = torch.cat([cells.mean((2, 3)), context], dim=1).unsqueeze(2)
        hidden = attention.activation(attention.conv_att_1(both))
        weight = F.softplus(attention.conv_att_2(hidden))
        descriptor += float(weight) * vector[0]
    return F.normalize(descriptor / len(regions), dim=0)


def describe(
    backbone: nn.Module, images: Tensor, attention: ContextAwareRegionalAttention, whitening: Whitening
) -> Tensor:
    """Descriptor (D,) of one prepared image (1, 3, H, W), at five levels."""
    height, width = images.shape[-2:]
    return describe_map(backbone(images), (height, width), 5, attention, whitening)
