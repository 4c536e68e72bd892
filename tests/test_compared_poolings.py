import numpy as np
import pytest
import torch
from torch import nn

from models.attention import ContextAwareRegionalAttention
from models.compared_poolings import ComparedPoolings
from models.retrieval_network import RetrievalNetwork
from models.whitening import Whitening

CHANNELS, STRIDE = 6, 8


class CountedBackbone(nn.Module):
    """A map of so many channels, a cell each 8 pixels, and a note of what it was shown."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, CHANNELS, STRIDE, STRIDE)
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return self.layer(images).relu()


def networks(poolings, scales=(1.0,), whiten=True):
    """The backbone, the comparison, and a network of its own for each pooling, all of the same parts."""
    torch.manual_seed(0)
    backbone, head = CountedBackbone(), ContextAwareRegionalAttention(CHANNELS, "tanh")
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    whitening = Whitening(torch.randn(4, CHANNELS), -torch.rand(CHANNELS)) if whiten else None
    own = [
        RetrievalNetwork(
            backbone, STRIDE, pooling, 3, head if pooling == "ra" else None, whitening, scales
        ).eval()
        for pooling in poolings
    ]
    shared = RetrievalNetwork(
        backbone,
        STRIDE,
        "ra" if "ra" in poolings else poolings[0],
        3,
        head if "ra" in poolings else None,
        whitening,
        scales,
    )
    return backbone, ComparedPoolings(shared, poolings).eval(), own


@pytest.mark.parametrize("poolings", [("ra", "rmac", "mac"), ("mac", "ra"), ("mac", "rmac")])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("whiten", [True, False])
def test_each_pooling_is_described_as_by_a_network_of_its_own(poolings, scales, whiten):
    _, compared, own = networks(poolings, scales, whiten)
    images = torch.rand(2, 3, 64, 48)
    with torch.inference_mode():
        found = compared(images)
        expected = torch.stack([network(images) for network in own], dim=1)
    assert found.shape == (2, len(poolings), 4 if whiten else CHANNELS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.norm(dim=2), 1, atol=1e-5)
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


def test_the_backbone_runs_once_for_each_scale():
    backbone, compared, _ = networks(("ra", "rmac", "mac"), scales=(0.5, 1.0))
    with torch.inference_mode():
        compared(torch.rand(2, 3, 64, 48))
    assert backbone.seen == [(2, 3, 32, 24), (2, 3, 64, 48)]


def test_an_image_that_the_backbone_sees_nothing_in_is_zero_throughout():
    backbone, compared, _ = networks(("rmac", "mac"), scales=(0.5, 1.0), whiten=False)
    nn.init.zeros_(backbone.layer.weight)
    nn.init.constant_(backbone.layer.bias, -1)
    with torch.inference_mode():
        assert not compared(torch.rand(1, 3, 64, 48)).any()
