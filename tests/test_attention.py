import numpy as np
import pytest
import torch
from conftest import authors_head_file, golden_arrays, golden_inputs, needs_authors_head
from torch import nn

from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.region_pooling import cell_grid, has_cells, region_mean
from utils.weights.networks import load_attention


def weights_of_map(head, features, size):
    grid = cell_grid(size, tuple(features.shape[-2:]), 5, 32)
    occupied = has_cells(grid, features.device)
    return head(region_mean(features, grid), features.mean((2, 3)), occupied)[0].detach()


@needs_authors_head
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("size", golden_inputs("head", "features"))
def test_weights_are_the_originals(size, activation):
    arrays = golden_arrays("head")
    name = "x".join(map(str, size))
    features = torch.from_numpy(arrays[f"{name}/features"]).float().unsqueeze(0)
    weights = weights_of_map(load_attention(authors_head_file(), 2048, activation), features, size)
    np.testing.assert_allclose(weights, arrays[f"{name}/attention_{activation}"], rtol=1e-4)


@needs_authors_head
@pytest.mark.parametrize("size", golden_inputs("head_small", "features"))
def test_weights_of_small_inputs_are_the_originals(size):
    arrays = golden_arrays("head_small")
    name = "x".join(map(str, size))
    features = torch.from_numpy(arrays[f"{name}/features"]).float().unsqueeze(0)
    weights = weights_of_map(load_attention(authors_head_file(), 2048, "tanh"), features, size)
    np.testing.assert_allclose(weights, arrays[f"{name}/attention_tanh"], rtol=1e-4)
    empty = ~has_cells(cell_grid(size, tuple(features.shape[-2:]), 5, 32), features.device)
    assert empty.any()
    np.testing.assert_allclose(weights[empty], 0.589, atol=5e-4)


@pytest.mark.parametrize(("activation", "layer"), [("tanh", nn.Tanh()), ("softplus", nn.Softplus())])
def test_is_two_convolutions_over_region_and_context(activation, layer):
    torch.manual_seed(0)
    head = ContextAwareRegionalAttention(6, activation)
    means, context = torch.randn(2, 5, 6), torch.randn(2, 6)
    both = torch.cat([means, context[:, None].expand(-1, 5, -1)], dim=2)
    means[:, 1], both[:, 1] = 0, 0  # a region without a cell
    layers = nn.Sequential(head.conv_att_1, layer, head.conv_att_2, nn.Softplus())
    expected = layers(both.transpose(1, 2)).squeeze(1)
    occupied = torch.tensor([True, False, True, True, True])
    torch.testing.assert_close(head(means, context, occupied), expected)
    torch.testing.assert_close(head(means, context, occupied.expand(2, -1)), expected)


def test_parameters_have_the_names_and_shapes_of_the_authors_file():
    shapes = {
        name: tuple(value.shape) for name, value in ContextAwareRegionalAttention(2048).state_dict().items()
    }
    assert shapes == {
        "conv_att_1.weight": (64, 4096, 1),
        "conv_att_1.bias": (64,),
        "conv_att_2.weight": (1, 64, 1),
        "conv_att_2.bias": (1,),
    }
