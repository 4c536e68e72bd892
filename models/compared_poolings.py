"""Several ways of pooling the same feature maps, so that the backbone runs once for all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.retrieval_network import Pooling, RetrievalNetwork, mean_direction, resize


class ComparedPoolings(nn.Module):
    """Describes each image by one vector of length 1 for each pooling.

    Args:
        network: with the backbone, whitening and scales that all share, and with an attention head if `ra` is
            one of the poolings.
        poolings: what to compare.
    """

    def __init__(self, network: RetrievalNetwork, poolings: Sequence[Pooling]) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.scales = network.scales
        self.networks = nn.ModuleList(
            RetrievalNetwork(
                network.backbone,
                network.stride,
                pooling,
                network.levels,
                network.attention,
                network.whitening,
                network.scales,
            )
            for pooling in poolings
        )

    def forward(self, images: Tensor) -> Tensor:
        """Describes images of one size.

        Args:
            images: (N, 3, H, W), prepared as the backbone's entry says.

        Returns:
            (N, P, D) float32 for P poolings, each vector of Euclidean length 1.
        """
        found = []
        for scale in self.scales:
            resized = resize(images, scale)
            height, width = resized.shape[-2:]
            features = self.backbone(resized)
            found.append(
                torch.stack(
                    [network.describe_maps(features, (height, width)) for network in self.networks], dim=1
                )
            )
        return mean_direction(found)
