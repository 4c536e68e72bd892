"""PCA whitening of region vectors.

Jégou and Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and whitening",
ECCV 2012.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Whitening(nn.Module):
    """The map y = components @ (x + negative_mean).

    The two arrays are in the form of the authors' files.

    Args:
        components: (D, C) principal directions, each divided by the square root of its variance.
        negative_mean: (C,), the negative mean of the vectors that the PCA was fitted on.
    """

    components: Tensor
    negative_mean: Tensor

    def __init__(self, components: Tensor, negative_mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("components", components)
        self.register_buffer("negative_mean", negative_mean)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the whitened vectors, (..., D), of vectors (..., C)."""
        return F.linear(vectors + self.negative_mean, self.components)
