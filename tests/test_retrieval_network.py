import numpy as np
import pytest
import torch
from conftest import (
    authors_head_file,
    golden_arrays,
    golden_inputs,
    needs_authors_head,
    recipe_state_dict,
)
from helpers import network_of, unit
from recipe import pca_arrays
from torch import nn

from models.backbones.registry import BACKBONES
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.regional_attention import RegionalAttention
from models.poolings.regions import rmac_regions
from models.retrieval_network import RetrievalNetwork
from models.whitening import Whitening
from utils.weights.networks import load_attention


@needs_authors_head
@pytest.mark.parametrize("size", golden_inputs("head", "features"))
@torch.inference_mode()
def test_descriptors_are_the_originals(size):
    arrays = golden_arrays("head")
    name = "x".join(map(str, size))
    components, _ = pca_arrays(2048, 1)
    whitening = Whitening(torch.from_numpy(components), torch.from_numpy(arrays["pca_mean"]))
    head = load_attention(authors_head_file(), 2048, "tanh")
    network = network_of("ra", attention=head, whitening=whitening)
    features = torch.from_numpy(arrays[f"{name}/features"]).float().unsqueeze(0)
    descriptor = network.describe_maps(features, size)[0, 0].numpy()
    expected = arrays[f"{name}/descriptor"]
    assert descriptor @ expected / np.linalg.norm(expected) >= 0.99999


@pytest.fixture(scope="module")
def authors_network():
    """The full network with weights of the golden recipe."""
    backbone = BACKBONES["resnet101_caffe"].build()
    backbone.features.load_state_dict(recipe_state_dict(backbone.features, 2))
    components, _ = pca_arrays(2048, 2)
    negative_mean = golden_arrays("backbone")["pca_mean"]
    whitening = Whitening(torch.from_numpy(components), torch.from_numpy(negative_mean))
    head = load_attention(authors_head_file(), backbone.channels, "tanh")
    return RetrievalNetwork(backbone, [RegionalAttention(5, backbone.stride, head)], whitening).eval()


@needs_authors_head
@pytest.mark.parametrize("size", golden_inputs("backbone", "descriptor"))
@torch.inference_mode()
def test_descriptors_from_pixels_are_the_originals(authors_network, size):
    arrays = golden_arrays("backbone")
    name = "x".join(map(str, size))
    rgb = torch.from_numpy(np.ascontiguousarray(arrays[f"{name}/bgr"][::-1].transpose(1, 2, 0)))
    images = authors_network.backbone.prepare(rgb.unsqueeze(0))
    assert images.shape[-2:] == size
    descriptor = authors_network(images)[0, 0].numpy()
    expected = arrays[f"{name}/descriptor"]
    assert descriptor @ expected / np.linalg.norm(expected) >= 0.99999


@torch.inference_mode()
def test_mac_is_the_direction_of_the_maximum():
    features = torch.tensor([[[[1.0, 3.0]], [[4.0, 2.0]]]])  # maxima 3 and 4
    descriptors = network_of("mac").describe_maps(features, (32, 64))
    torch.testing.assert_close(descriptors, torch.tensor([[[0.6, 0.8]]]))


@torch.inference_mode()
def test_rmac_is_the_mean_of_whitened_unit_regions():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 2, 2)).astype(np.float32)
    components, mean = (
        rng.standard_normal((2, 3)).astype(np.float32),
        rng.standard_normal(3).astype(np.float32),
    )
    whitening = Whitening(torch.from_numpy(components), torch.from_numpy(mean))
    network = network_of("rmac", levels=2, whitening=whitening)
    # On 64 x 64 pixels level 1 is the full map and level 2, of side 42, starts at pixel 0 or 22: cells 0 to
    # round(41 / 32) = 1 and round(22 / 32) = 1 to round(63 / 32) = 2, clipped to 1.
    assert rmac_regions(64, 64, 2)[1:, :2].tolist() == [[0, 0], [22, 0], [0, 22], [22, 22]]
    regions = [features, features, features[:, :, 1:], features[:, 1:], features[:, 1:, 1:]]
    whitened = [unit(components @ (region.max((1, 2)) + mean)) for region in regions]
    descriptor = network.describe_maps(torch.from_numpy(features).unsqueeze(0), (64, 64))[0, 0]
    np.testing.assert_allclose(descriptor, unit(np.mean(whitened, axis=0)), rtol=1e-5)


@torch.inference_mode()
def test_attention_weighs_the_regions():
    class First(ContextAwareRegionalAttention):
        def forward(self, region_means, context, occupied):
            return torch.eye(region_means.shape[1])[:1]

    features = torch.rand(1, 4, 2, 2)
    network = network_of("ra", levels=2, attention=First(4))
    maximum = network_of("mac")
    torch.testing.assert_close(
        network.describe_maps(features, (64, 64)), maximum.describe_maps(features, (64, 64))
    )


@torch.inference_mode()
def test_a_batch_is_described_as_its_images_one_by_one():
    torch.manual_seed(0)
    network = network_of("ra", nn.AvgPool2d(32), attention=ContextAwareRegionalAttention(3))
    images = torch.randn(3, 3, 96, 160)
    together = network(images)
    torch.testing.assert_close(together, torch.cat([network(image[None]) for image in images]))
    torch.testing.assert_close(together.norm(dim=2), torch.ones(3, 1))


@torch.inference_mode()
def test_several_scales_are_the_direction_of_the_sum_of_their_descriptors():
    # Without layers the map is the image. At half the size, 2 x 2 pixels become their mean, because the
    # centre of the new pixel lies in the middle of the four.
    image = torch.tensor([[[3.0, 1.0], [0.0, 0.0]], [[0.0, 4.0], [0.0, 0.0]]]).unsqueeze(0)
    network = network_of("mac", stride=1, scales=(1, 0.5))
    # at 1: maxima (3, 4), of length 5; at 0.5: means (1, 1), of length sqrt 2
    expected = np.array([3 / 5 + 0.5**0.5, 4 / 5 + 0.5**0.5])
    np.testing.assert_allclose(network(image)[0, 0], expected / np.linalg.norm(expected), rtol=1e-6)
    half = network_of("mac", stride=1, scales=(0.5,))
    np.testing.assert_allclose(half(image)[0, 0], [0.5**0.5, 0.5**0.5], rtol=1e-6)
