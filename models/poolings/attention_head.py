"""Context-aware regional attention: one weight per region, from the means of the region and the image.

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
    """Two convolutions of kernel size 1 over the regions, with an activation between them and softplus last.

    Args:
        channels: C, the number of channels of the feature map.
        activation: the function between the layers. With the same weights file, the authors' evaluation uses
            tanh and their training uses softplus. Their published scores come from tanh.
    """

    def __init__(self, channels: int, activation: Activation = "tanh") -> None:
        super().__init__()
        # Conv1d rather than the equivalent Linear, because the authors' weights file is for Conv1d.
        self.conv_att_1 = nn.Conv1d(2 * channels, HIDDEN_CHANNELS, kernel_size=1)
        self.conv_att_2 = nn.Conv1d(HIDDEN_CHANNELS, 1, kernel_size=1)
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[activation]

    def forward(self, region_means: Tensor, context: Tensor, occupied: Tensor) -> Tensor:
        """Return the weights of the regions of each image.

        Args:
            region_means: (N, R, C), the mean of the feature map over each region; 0 if it has no cells.
            context: (N, C), the mean of the entire feature map.
            occupied: (R,) or (N, R) bool, false for a region without cells; its context is 0, too.

        Returns:
            (N, R) weights, greater than 0.
        """
        # The first layer takes the mean of a region concatenated with the context. The term of the context is
        # the same for all regions of an image, so compute it once per image, not once per region.
        weight = self.conv_att_1.weight.squeeze(2)
        channels = context.shape[1]
        regional = F.linear(region_means, weight[:, :channels], self.conv_att_1.bias)
        contextual = F.linear(context, weight[:, channels:]).unsqueeze(1)
        hidden = regional + contextual * occupied.to(contextual.dtype).unsqueeze(-1)
        score = F.linear(self.activation(hidden), self.conv_att_2.weight.squeeze(2), self.conv_att_2.bias)
        return F.softplus(score).squeeze(2)
