"""A frozen network from pixels to a feature map, with the preprocessing that its weights expect."""

import torch
from torch import Tensor, nn

from models.backbones.preprocessing import Preprocessing


class Backbone(nn.Module):
    """Convolutional features of images.

    Args:
        features: the layers, (N, 3, H, W) -> (N, C, h, w).
        preprocessing: the preprocessing that the weights of the layers expect.
        channels: C, the number of channels of the feature map.
        stride: pixels per cell of the feature map.
    """

    def __init__(self, features: nn.Module, preprocessing: Preprocessing, channels: int, stride: int) -> None:
        super().__init__()
        self.features = features
        self.preprocessing = preprocessing
        self.channels = channels
        self.stride = stride
        self.memory_format = torch.channels_last

    @property
    def device(self) -> torch.device:
        """The device of the first layer."""
        return next(self.features.parameters()).device

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Change the order in memory of the layers' weights and of prepared images."""
        self.features.to(memory_format=memory_format)
        self.memory_format = memory_format

    def compile_features(self) -> None:
        """Let torch compile the layers once per image size, up to torch's limit of eight sizes.

        Further sizes run uncompiled. Shapes are static because compiling for dynamic shapes takes longer than
        most evaluations.
        """
        self.features.compile(dynamic=False)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Prepare pixels for `forward`, on the device and in the number type of the first layer.

        Args:
            pixels: (N, H, W, 3) uint8, RGB, on any device.

        Returns:
            (N, 3, H, W) in `memory_format`, channels_last by default.
        """
        weight = next(self.features.parameters())
        images: Tensor = self.preprocessing(pixels.to(weight.device))
        return images.to(weight.dtype, memory_format=self.memory_format)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature maps (N, C, h, w) of prepared images (N, 3, H, W), in float32.

        Pooling and attention always compute in float32. They cost little, and their long sums would lose
        precision in a shorter type.
        """
        maps: Tensor = self.features(images)
        return maps.float()
