import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import network_of, pooling_of
from reference import region_cells
from torch import nn

from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.regions import rmac_regions


class Fixed(ContextAwareRegionalAttention):
    """Attention that gives the regions of every image the weights 1, 2, 3, ..."""

    def forward(self, region_means, context, occupied):
        return torch.arange(1.0, region_means.shape[1] + 1).expand(region_means.shape[:2])


def spread_one_by_one(features, image_size, levels, head):
    """Return the mean weight of the regions over each cell, computed region by region."""
    _, height, width = features.shape
    total, count = np.zeros((height, width)), np.zeros((height, width))
    context = features.mean((1, 2))
    for rows, columns in region_cells(rmac_regions(*image_size, levels), (height, width)):
        mean = features[:, rows, columns].mean((1, 2))
        both = torch.cat([mean, context])[None, :, None]
        weight = F.softplus(head.conv_att_2(torch.tanh(head.conv_att_1(both)))).item()
        total[rows, columns] += weight
        count[rows, columns] += 1
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


@pytest.mark.parametrize("image_size", [(384, 512), (512, 160), (96, 96), (64, 2048)])
@torch.inference_mode()
def test_is_the_mean_weight_of_the_regions_over_each_cell(image_size):
    torch.manual_seed(0)
    backbone, head = nn.Conv2d(3, 8, 32, stride=32), ContextAwareRegionalAttention(8)
    nn.init.normal_(head.conv_att_2.weight)  # otherwise all weights are nearly equal
    network = network_of("ra", backbone, levels=4, attention=head)
    images = 5 * torch.randn(2, 3, *image_size)
    actual = network.attention_map(images).numpy()
    expected = [spread_one_by_one(features, image_size, 4, head) for features in backbone(images)]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert np.std(actual) > 0.01


@torch.inference_mode()
def test_three_regions_by_hand():
    # On 64 x 128 pixels level 1 has three squares of 64 pixels from the columns 0, 32 and 64. With a stride
    # of 32 their last pixels, 63, 95 and 127, round up: on the 2 x 4 map they are columns 0-2, 1-3 and 2-3.
    assert rmac_regions(64, 128, 1)[:, 0].tolist() == [0, 32, 64]
    network = network_of("ra", nn.AvgPool2d(32), levels=1, attention=Fixed(3))
    actual = network.attention_map(torch.rand(1, 3, 64, 128))
    assert actual.tolist() == [[[1, 1.5, 2, 2.5]] * 2]


@pytest.mark.parametrize("pooling", ["rmac", "mac", "spoc", "gem", "rgem"])
@torch.inference_mode()
def test_without_a_head_all_cells_are_alike(pooling):
    maps = torch.rand(2, 3, 3, 5)
    assert pooling_of(pooling).attention_map(maps, (96, 160)).tolist() == np.ones((2, 3, 5)).tolist()


def test_a_network_without_attention_has_no_map():
    with pytest.raises(ValueError, match="no pooling with attention"):
        network_of("rmac").attention_map(torch.rand(1, 3, 96, 160))


@torch.inference_mode()
def test_a_cell_between_the_regions_of_a_long_image_is_0():
    # Level 1 has at most seven squares of 64 pixels, 330 apart.
    actual = pooling_of("rmac", levels=1).attention_map(torch.rand(1, 3, 2, 64), (64, 2048))
    starts = rmac_regions(64, 2048, 1)[:, 0]
    assert len(starts) == 7
    covered = {cell for x in starts for cell in range(round(x / 32), min(round((x + 63) / 32), 63) + 1)}
    assert actual[0, 0].nonzero().flatten().tolist() == sorted(covered)
    assert actual.unique().tolist() == [0, 1]
