"""ResNet-101 up to its last feature map, in torchvision's version and in the original version for Caffe."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

BLOCKS = [3, 4, 23, 3]
"""Bottleneck blocks per stage of ResNet-101 (He et al., CVPR 2016, table 1)."""


class ResNet101Features(ResNet):
    """The ResNet-101 of torchvision without average pool and classifier: (N, 3, H, W) -> (N, 2048, h, w)."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, BLOCKS)
        del self.avgpool, self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps, at 1/32 of the input size."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class CaffeMaxPool(nn.Module):
    """Max pool of kernel size 3 and stride 2 without padding; windows that cross the border are clipped."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps, (N, C, ceil((h - 1) / 2), ceil((w - 1) / 2)), with at least one cell per side."""
        # Caffe has no window for a side of one cell. Padding it to two cells gives one window, so that images
        # one pixel high or wide have a descriptor, too.
        height, width = x.shape[-2:]
        if min(height, width) < 2:
            x = F.pad(x, (0, int(width < 2), 0, int(height < 2)), value=float("-inf"))
        return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


class CaffeResNet101Features(ResNet101Features):
    """The original ResNet-101 for Caffe: stride in the first 1 × 1 convolutions, and CaffeMaxPool."""

    def __init__(self) -> None:
        super().__init__()
        self.maxpool = CaffeMaxPool()
        for stage in (self.layer2, self.layer3, self.layer4):
            first = stage[0]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
