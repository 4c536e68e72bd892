"""Preprocessing of pixels for a backbone: channel order, mean and scale."""

from typing import Literal

import torch
from torch import Tensor, nn

ChannelOrder = Literal["RGB", "BGR"]


class Preprocessing(nn.Module):
    """Subtract a mean from pixels and divide them by a scale, per channel.

    Args:
        channel_order: order of the network's input channels.
        mean: grey levels, 0..255, per channel in `channel_order`.
        scale: grey levels per channel in `channel_order`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        channel_order: ChannelOrder,
        mean: tuple[float, float, float],
        scale: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.channel_order = channel_order
        self.has_scale = scale != (1.0, 1.0, 1.0)
        # Not persistent, because the published state dicts hold no preprocessing.
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Prepare pixels for the network.

        Args:
            pixels: (N, H, W, 3) uint8, RGB.

        Returns:
            (N, 3, H, W) float32 in channels_last.
        """
        x = pixels if self.channel_order == "RGB" else pixels.flip(3)
        x = x.to(torch.float32)
        x.sub_(self.mean)
        if self.has_scale:
            x.div_(self.scale)
        return x.permute(0, 3, 1, 2)
