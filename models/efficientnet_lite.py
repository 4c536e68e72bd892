"""EfficientNet-Lite0 up to its last feature map.

EfficientNet-B0's table of blocks (Tan and Le, ICML 2019, table 1) without squeeze-and-excite, with ReLU6 for
swish, and TensorFlow's "same" padding, as Google published it in 2020.
"""

import re
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3


class Stage(NamedTuple):
    """One row of the table: `repeats` blocks, the first of which has the stride."""

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

FLOAT32_BLOCKS = 9
"""Blocks that, with the stem, lose most in bfloat16: the weights of their filters are few and reach far."""


class SamePaddingConv2d(nn.Conv2d):
    """Convolution to ceil(size / stride) cells, without bias; the odd cell of a pad goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', ceil(h / stride), ceil(w / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pad_y, pad_x = (max(kernel - 1 - (size - 1) % stride, 0) for size in x.shape[-2:])
        if pad_y % 2 == 0 and pad_x % 2 == 0:  # the convolution pads both sides alike without a copy
            padding = (pad_y // 2, pad_x // 2)
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        x = F.pad(x, (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class InvertedResidual(nn.Module):
    """Expand by 1 × 1, filter each channel, project by 1 × 1 without activation; add the input if it fits."""

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
        """(N, inputs, h, w) -> (N, outputs, ceil(h / stride), ceil(w / stride))."""
        shortcut = x
        if self.expands:
            x = F.relu6(self.bn0(self.expand_conv(x)), inplace=True)
        x = F.relu6(self.bn1(self.depthwise_conv(x)), inplace=True)
        x = self.bn2(self.project_conv(x))
        return x + shortcut if self.has_shortcut else x


class EfficientNetLite0Features(nn.Module):
    """EfficientNet-Lite0 without its pool and classifier: (N, 3, H, W) -> (N, 1280, h, w) at 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SamePaddingConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.bn0 = _batch_norm(STEM_CHANNELS)
        self.blocks = nn.Sequential()
        inputs = STEM_CHANNELS
        for stage in STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                self.blocks.append(
                    InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expansion)
                )
                inputs = stage.channels
        self.conv_head = SamePaddingConv2d(inputs, HEAD_CHANNELS, 1)
        self.bn1 = _batch_norm(HEAD_CHANNELS)

    def fit_for_bfloat16(self) -> list[nn.Module]:
        """The parts that bfloat16 hardly harms: with them in it, descriptors keep a cosine of 0.999."""
        return [*self.blocks[FLOAT32_BLOCKS:], self.conv_head, self.bn1]

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps at 1/32 of the input's size, rounded up."""
        x = F.relu6(self.bn0(self.conv_stem(x)), inplace=True)
        for block in self.blocks:
            x = block(x.to(next(block.parameters()).dtype))  # it changes once, if at all
        return F.relu6(self.bn1(self.conv_head(x)), inplace=True)


def module_name(published: str) -> str:
    """Name here of a parameter in the published state dict, whose every part may start with an underscore."""
    return re.sub(r"(^|\.)_", r"\1", published)
