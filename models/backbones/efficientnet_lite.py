"""EfficientNet-Lite up to its last feature map.

The blocks of EfficientNet-B0 (Tan and Le, ICML 2019, table 1) without squeeze-and-excite, with ReLU6 instead
of swish, and with TensorFlow's "same" padding, as published by Google in 2020. The larger variants scale its
width and depth, except for the stem, the head and the number of blocks in the first and the last stage.
"""

import math
import re
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3


class Stage(NamedTuple):
    """One row of the table: `repeats` blocks; the stride applies to the first block."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
HEAD_CHANNELS = 1280

FLOAT32_STAGES = 4
"""Number of stages, after the stem, that stay in float32, together with the first block after them.

bfloat16 loses the most precision in them: their filters have few weights, of very different sizes.
"""


class SamePaddingConv2d(nn.Conv2d):
    """Convolution to ceil(size / stride) cells, without bias; an odd padding cell goes right or below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, (N, C', ceil(h / stride), ceil(w / stride)), of x, (N, C, h, w)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pad_y, pad_x = (max(kernel - 1 - (size - 1) % stride, 0) for size in x.shape[-2:])
        if pad_y % 2 == 0 and pad_x % 2 == 0:  # conv2d pads symmetrically without a copy
            padding = (pad_y // 2, pad_x // 2)
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        x = F.pad(x, (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class InvertedResidual(nn.Module):
    """A 1 × 1 expansion, a depthwise convolution, a linear 1 × 1 projection, and a shortcut if possible."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        self.has_shortcut = stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv = SamePaddingConv2d(inputs, hidden, 1)
            self.bn0 = _batch_norm(hidden)
        self.depthwise_conv = SamePaddingConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.bn1 = _batch_norm(hidden)
        self.project_conv = SamePaddingConv2d(hidden, outputs, 1)
        self.bn2 = _batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, (N, outputs, ceil(h / stride), ceil(w / stride)), for x, (N, inputs, h, w)."""
        shortcut = x
        if self.expands:
            x = F.relu6(self.bn0(self.expand_conv(x)), inplace=True)
        x = F.relu6(self.bn1(self.depthwise_conv(x)), inplace=True)
        x = self.bn2(self.project_conv(x))
        return x + shortcut if self.has_shortcut else x


def widen(channels: int, width: float) -> int:
    """Return channels times width, rounded to a multiple of 8 that is at least 90 % of the product."""
    product = channels * width
    rounded = max(8, int(product + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * product else rounded


def scaled_stages(width: float, depth: float) -> list[Stage]:
    """Return the table for a width and a depth: channels and repeats times these factors."""
    last = len(STAGES) - 1
    return [
        stage._replace(
            channels=widen(stage.channels, width),
            repeats=stage.repeats if index in (0, last) else math.ceil(stage.repeats * depth),
        )
        for index, stage in enumerate(STAGES)
    ]


class EfficientNetLiteFeatures(nn.Module):
    """EfficientNet-Lite without its pool and classifier: (N, 3, H, W) -> (N, 1280, h, w) at 1/32.

    Args:
        width: factor of the channels: 1 for Lite0 and Lite1, 1.1 for Lite2.
        depth: factor of the repeats: 1 for Lite0, 1.1 for Lite1, 1.2 for Lite2.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        stages = scaled_stages(width, depth)
        self.float32_blocks = sum(stage.repeats for stage in stages[:FLOAT32_STAGES]) + 1
        self.conv_stem = SamePaddingConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.bn0 = _batch_norm(STEM_CHANNELS)
        self.blocks = nn.Sequential()
        inputs = STEM_CHANNELS
        for stage in stages:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                self.blocks.append(
                    InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expansion)
                )
                inputs = stage.channels
        self.conv_head = SamePaddingConv2d(inputs, HEAD_CHANNELS, 1)
        self.bn1 = _batch_norm(HEAD_CHANNELS)

    def fit_for_bfloat16(self) -> list[nn.Module]:
        """Return the modules that can run in bfloat16.

        With these modules in bfloat16, descriptors keep a cosine similarity of 0.999 to float32.
        """
        return [*self.blocks[self.float32_blocks :], self.conv_head, self.bn1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps, at 1/32 of the input size, rounded up."""
        x = F.relu6(self.bn0(self.conv_stem(x)), inplace=True)
        for block in self.blocks:
            x = block(x.to(next(block.parameters()).dtype))  # the type changes at most once
        return F.relu6(self.bn1(self.conv_head(x)), inplace=True)


def module_name(published: str) -> str:
    """Return a published parameter name without the underscore that may start each of its parts."""
    return re.sub(r"(^|\.)_", r"\1", published)
