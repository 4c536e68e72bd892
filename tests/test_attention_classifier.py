import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import authors_head_file, golden_arrays, needs_authors_head
from helpers import backbone_of
from torch import nn

from models.attention_classifier import AttentionClassifier, RegionFeatures, region_features
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.weights.networks import load_attention


class Returning(nn.Module):
    """Layers that return the same maps for every input."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, images):
        return self.maps


@needs_authors_head
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_loss_and_gradients_are_the_originals(activation):
    arrays = golden_arrays("training")
    rng = np.random.default_rng(int(arrays["fc_seed"]))
    rng.standard_normal((2, 2048, 7, 7))
    fc_weight = torch.from_numpy((0.02 * rng.standard_normal((1000, 2048))).astype(np.float32))
    head = load_attention(authors_head_file(), 2048, activation)
    model = AttentionClassifier(head, fc_weight, torch.zeros(1000))

    # The features are the backbone's output for 224 x 224 inputs, so a network that returns them replaces it.
    maps = torch.from_numpy(arrays["features"]).float()
    features = region_features(backbone_of(Returning(maps)), torch.empty(2, 3, 224, 224), 5, 2)
    loss = F.cross_entropy(
        model(RegionFeatures(*(tensor.clone() for tensor in features))), torch.from_numpy(arrays["labels"])
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(arrays[f"{activation}/loss"]), rel=1e-4)
    for name, parameter in head.named_parameters():
        gradient = parameter.grad[:, ::32] if name == "conv_att_1.weight" else parameter.grad
        expected = arrays[f"{activation}/grad/{name}"]
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def some_features(regions=4, channels=6):
    torch.manual_seed(0)
    return RegionFeatures(
        torch.rand(2, regions, channels), torch.rand(2, regions, channels), torch.rand(2, channels)
    )


def test_scores_are_the_classifiers_of_the_weighted_mean():
    features = some_features()
    head = ContextAwareRegionalAttention(6)
    weight, bias = torch.randn(3, 6), torch.randn(3)
    weights = head(features.means, features.context, torch.ones(4, dtype=torch.bool))
    expected = [
        weight @ sum(weights[n, r] * features.maxima[n, r] for r in range(4)) / 4 + bias for n in range(2)
    ]
    torch.testing.assert_close(
        AttentionClassifier(head, weight, bias)(features), torch.stack(expected), rtol=1e-4, atol=1e-5
    )


@needs_authors_head
@torch.inference_mode()
def test_a_region_without_a_cell_has_the_same_weight_in_training():
    # On 34 x 34 pixels some regions begin beyond the only cell. Their maxima are 0, so replace these by 1.
    maps = torch.from_numpy(golden_arrays("head_small")["34x34/features"]).float()[None]
    features = region_features(backbone_of(Returning(maps)), torch.empty(1, 3, 34, 34), 5, 1)
    head = load_attention(authors_head_file(), 2048, "tanh")
    empty = ~features.means[0].any(1)
    assert empty.any()
    model = AttentionClassifier(head, torch.ones(1, 2048) / 2048, torch.zeros(1))
    ones = RegionFeatures(empty.float()[None, :, None].expand(1, -1, 2048), features.means, features.context)
    assert model(ones).item() == pytest.approx(0.589 * empty.sum().item() / len(empty), abs=1e-3)


def test_uniform_scores_are_those_of_weight_one():
    class One(ContextAwareRegionalAttention):
        def forward(self, region_means, context, occupied):
            return torch.ones(region_means.shape[:2])

    model = AttentionClassifier(One(6), torch.randn(3, 6), torch.randn(3))
    torch.testing.assert_close(model.uniform(some_features()), model(some_features()))


def test_the_backbone_is_not_differentiated_whatever_the_batch():
    backbone = backbone_of(nn.Conv2d(3, 5, 32, 32), channels=5)
    images = torch.randn(3, 3, 96, 64)
    one_by_one = region_features(backbone, images, 2, 1)
    together = region_features(backbone, images, 2, 3)
    assert all(tensor.is_inference() for tensor in together)
    for a, b in zip(one_by_one, together, strict=True):
        torch.testing.assert_close(a, b)
