"""PCA whitening of region vectors (Jégou and Chum, ECCV 2012), learned beforehand and applied here."""

import torch.nn.functional as F
from torch import Tensor, nn


class Whitening(nn.Module):
    """y = components @ (x + negative_mean), in the form of the authors' two files.

    Args:
        components: (D, C) principal directions, each already divided by the square root of its variance.
        negative_mean: (C,), minus the mean of the vectors that the PCA was fitted on.
    """

    components: Tensor
    negative_mean: Tensor

    def __init__(self, components: Tensor, negative_mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("components", components)
        self.register_buffer("negative_mean", negative_mean)

    def forward(self, vectors: Tensor) -> Tensor:
        """Whitens (..., C) vectors to (..., D)."""
        return F.linear(vectors + self.negative_mean, self.components)
