import numpy as np
import pytest
import torch
from helpers import network_of
from torch import nn

from models.poolings.attention_head import ContextAwareRegionalAttention
from models.whitening import Whitening

CHANNELS, STRIDE = 6, 8


class CountedLayers(nn.Module):
    """Layers with a cell per 8 x 8 pixels, which record the shapes of their inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, CHANNELS, STRIDE, STRIDE)
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return self.layer(images).relu()


def networks(poolings, scales=(1.0,), whiten=True):
    """Return the layers, a network with all poolings, and a network per pooling, with the same parameters."""
    torch.manual_seed(0)
    layers, head = CountedLayers(), ContextAwareRegionalAttention(CHANNELS, "tanh")
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    whitening = Whitening(torch.randn(4, CHANNELS), -torch.rand(CHANNELS)) if whiten else None
    parts = {"levels": 3, "stride": STRIDE, "attention": head, "whitening": whitening, "scales": scales}
    return (
        layers,
        network_of(poolings, layers, **parts),
        [network_of(name, layers, **parts) for name in poolings],
    )


@pytest.mark.parametrize("poolings", [("ra", "rmac", "mac"), ("mac", "ra"), ("spoc", "gem", "rgem", "ra")])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
@pytest.mark.parametrize("whiten", [True, False])
def test_a_network_with_several_poolings_describes_as_one_network_per_pooling(poolings, scales, whiten):
    _, compared, single = networks(poolings, scales, whiten)
    images = torch.rand(2, 3, 64, 48)
    with torch.inference_mode():
        descriptors = compared(images)
        expected = torch.cat([network(images) for network in single], dim=1)
    assert descriptors.shape == (2, len(poolings), 4 if whiten else CHANNELS)
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)
    np.testing.assert_allclose(descriptors.norm(dim=2), 1, atol=1e-5)
    assert (descriptors[:, 0] - descriptors[:, 1]).abs().max() > 1e-3


def test_the_backbone_runs_once_for_each_scale():
    layers, compared, _ = networks(("ra", "rmac", "mac"), scales=(0.5, 1.0))
    with torch.inference_mode():
        compared(torch.rand(2, 3, 64, 48))
    assert layers.shapes == [(2, 3, 32, 24), (2, 3, 64, 48)]


def test_an_image_without_features_has_descriptors_of_zeros():
    layers, compared, _ = networks(("rmac", "mac"), scales=(0.5, 1.0), whiten=False)
    nn.init.zeros_(layers.layer.weight)
    nn.init.constant_(layers.layer.bias, -1)
    with torch.inference_mode():
        assert not compared(torch.rand(1, 3, 64, 48)).any()
