"""Context-aware regional attention: one weight a region, from the region's mean and the whole image's mean.

Kim and Yoon, "Regional Attention Based Deep Feature for Image Retrieval", BMVC 2018, section 3.2.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["tanh", "softplus"]

HIDDEN_CHANNELS = 64
"""Width of the head's hidden layer."""


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "softplus": F.softplus}


class ContextAwareRegionalAttention(nn.Module):
    """Two convolutions of kernel 1 over the regions, an activation between them and a softplus behind.

    Args:
        channels: C, the channels of the feature map.
        activation: the function between the layers. The authors' evaluation uses tanh and their training
            softplus, for one and the same weights file; tanh is what their published numbers come from.
    """

    def __init__(self, channels: int, activation: Activation = "tanh") -> None:
        super().__init__()
        # Conv1d, although linear layers do the same, so that the authors' weights file loads as it is.
        self.conv_att_1 = nn.Conv1d(2 * channels, HIDDEN_CHANNELS, kernel_size=1)
        self.conv_att_2 = nn.Conv1d(HIDDEN_CHANNELS, 1, kernel_size=1)
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[activation]

    def forward(self, region_means: Tensor, context: Tensor, occupied: Tensor) -> Tensor:
        """Weighs the regions of each image.

        Args:
            region_means: (N, R, C), the mean of the feature map over each region; zeros where it has no cell.
            context: (N, C), the mean over the whole map.
            occupied: (R,) or (N, R) bool, false for a region without a cell: it sees zeros as context, too.

        Returns:
            (N, R) weights, greater than 0.
        """
        # The first layer sees a region's mean beside the context. The context's share is the same for all
        # regions of an image, so it is computed once an image instead of once a region.
        weight = self.conv_att_1.weight.squeeze(2)
        channels = context.shape[1]
        own = F.linear(region_means, weight[:, :channels], self.conv_att_1.bias)
        shared = F.linear(context, weight[:, channels:]).unsqueeze(1)
        hidden = own + shared * occupied.to(shared.dtype).unsqueeze(-1)
        score = F.linear(self.activation(hidden), self.conv_att_2.weight.squeeze(2), self.conv_att_2.bias)
        return F.softplus(score).squeeze(2)
