"""ResNet-101 up to its last feature map: torchvision's, and the one first published for Caffe."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

BLOCKS = [3, 4, 23, 3]
"""Bottleneck blocks a stage of ResNet-101 (He et al., CVPR 2016, table 1)."""


class ResNet101Features(ResNet):
    """torchvision's ResNet-101 without its average pool and classifier: (N, 3, H, W) -> (N, 2048, h, w)."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, BLOCKS)
        del self.avgpool, self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps at 1/32 of the input's size."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class CaffeMaxPool(nn.Module):
    """3 × 3 maximum at stride 2, without padding, windows that start inside but end outside cut off."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, ceil((h - 1) / 2), ...), but never less than one cell."""
        # A side of one cell has no window by this rule. One that is cut off to that cell is the least
        # departure that gives an image of one pixel's height a descriptor.
        height, width = x.shape[-2:]
        if min(height, width) < 2:
            x = F.pad(x, (0, int(width < 2), 0, int(height < 2)), value=float("-inf"))
        return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


class CaffeResNet101Features(ResNet101Features):
    """ResNet-101 as first published for Caffe: stride in each first 1 × 1 convolution, another max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.maxpool = CaffeMaxPool()
        for stage in (self.layer2, self.layer3, self.layer4):
            first = stage[0]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
