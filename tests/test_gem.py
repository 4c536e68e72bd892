"""Generalised means and means of feature maps, compared with arithmetic by hand and with plain loops."""

import numpy as np
import pytest
import torch
from helpers import pooling_of
from reference import pool_regions

from models.poolings.gem import GeM
from models.poolings.mac import MAC
from models.poolings.regional_gem import RegionalGeM
from models.poolings.regions import rmac_regions
from models.poolings.spoc import SPoC

MAP = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 5.0]], [[-2.0, -1.0], [4.0, -7.0]]]])
"""A map of three channels: positive, with zeros, and with negative features."""
SIZE = (64, 64)


def logarithmic_gem(cells, axis, p):
    """Return the generalised mean in float64, from the logarithms of the cells."""
    logarithms = p * np.log(np.maximum(cells.astype(np.float64), 1e-6))
    count = np.prod([cells.shape[dim] for dim in np.atleast_1d(axis)])
    powers = logarithms.reshape(len(cells), count)
    return np.exp((np.logaddexp.reduce(powers, axis=1) - np.log(count)) / p)


def random_features(*shape, seed=0, least=1e-9, most=1e3):
    """Return random features of all magnitudes, a third of them zeros."""
    rng = np.random.default_rng(seed)
    features = np.exp(rng.uniform(np.log(least), np.log(most), shape))
    return torch.from_numpy((features * (rng.random(shape) > 1 / 3)).astype(np.float32))


def test_spoc_is_the_mean():
    vectors, weights = SPoC()(MAP, SIZE)
    assert vectors.tolist() == [[[2.5, 1.25, -1.5]]]
    assert weights.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        # the mean, with zeros and negative features replaced by 0.000001
        (1, [2.5, 5.000003 / 4, 4.000003 / 4]),
        (2, [(30 / 4) ** 0.5, (25 / 4) ** 0.5, (16 / 4) ** 0.5]),
        (3, [(100 / 4) ** (1 / 3), (125 / 4) ** (1 / 3), (64 / 4) ** (1 / 3)]),
    ],
)
def test_gem_by_hand(p, expected):
    vectors, weights = GeM(p)(MAP, SIZE)
    assert vectors.shape == (1, 1, 3)
    np.testing.assert_allclose(vectors[0, 0], expected, rtol=1e-6)
    assert weights.tolist() == [[1.0]]


def test_three_is_the_exponent_unless_another_is_given():
    assert GeM()(MAP, SIZE).vectors.tolist() == GeM(3)(MAP, SIZE).vectors.tolist()
    assert RegionalGeM(1, 32)(MAP, SIZE).vectors.tolist() == RegionalGeM(1, 32, 3)(MAP, SIZE).vectors.tolist()


def test_gem_of_a_map_of_zeros_is_the_least_feature_as_published():
    np.testing.assert_allclose(GeM(3)(torch.zeros(1, 2, 3, 4), (96, 128)).vectors, 1e-6, rtol=1e-5)


def test_gem_with_exponent_1_is_spoc_and_with_a_large_one_nearly_mac():
    features = random_features(3, 5, 6, 7, least=1e-3)
    least, most = SPoC()(features, SIZE).vectors, MAC()(features, SIZE).vectors
    np.testing.assert_allclose(GeM(1)(features, SIZE).vectors, least, rtol=1e-6, atol=1e-6)
    near = GeM(100)(features, SIZE).vectors
    assert bool((near <= most * (1 + 1e-6)).all())
    # at least 42 ** -0.01 times the maximum, because one of 42 cells is the maximum
    assert bool((near >= most * 0.9633).all())
    between = GeM(2.5)(features, SIZE).vectors
    assert bool(((between > least) & (between < most)).all())


@pytest.mark.parametrize("p", [1, 2.5, 3, 13, 100])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gem_of_features_of_all_magnitudes_neither_overflows_nor_vanishes(p, memory_format):
    features = random_features(2, 8, 9, 11)
    features[:, 0] = 1000.0
    features[:, 1] *= 1e-5
    actual = GeM(p)(features.to(memory_format=memory_format), SIZE).vectors
    for image, vectors in zip(features.numpy(), actual, strict=True):
        np.testing.assert_allclose(vectors[0], logarithmic_gem(image, (1, 2), p), rtol=1e-5)


@pytest.mark.parametrize("p", [1, 3, 100])
@pytest.mark.parametrize(
    ("image_size", "map_size"),
    [((768, 1024), (24, 32)), ((97, 131), (3, 5)), ((33, 35), (1, 1)), ((1, 64), (1, 2))],
)
def test_regional_gem_is_the_gem_of_one_region_after_the_other(p, image_size, map_size):
    features = random_features(2, 4, *map_size)
    features[0, 0, : map_size[0] // 2] *= 1e-3  # regions whose powers vanish beside the map's maximum
    regions = rmac_regions(*image_size, 5)
    vectors, weights = RegionalGeM(5, 32, p)(features, image_size)
    assert vectors.shape == (2, len(regions), 4)
    for image, actual in zip(features.numpy(), vectors, strict=True):
        expected = pool_regions(image, regions, lambda cells, axis: logarithmic_gem(cells, axis, p))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert weights.tolist() == [[1.0] * len(regions)] * 2


@pytest.mark.parametrize(
    "pooling", [SPoC(), GeM(1), GeM(3), GeM(20), RegionalGeM(2, 32, 1), RegionalGeM(2, 32)]
)
def test_gradients_are_those_of_small_differences(pooling):
    features = torch.rand(1, 2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: pooling(maps, (96, 64)).vectors, features)


def test_gradients_are_finite_where_a_region_has_no_cells_and_where_features_are_zero():
    features = torch.zeros(1, 2, 1, 1).requires_grad_()
    vectors = RegionalGeM(5, 32)(features, (33, 33)).vectors
    assert vectors[0, -1].tolist() == [0, 0]
    vectors.sum().backward()
    assert bool(features.grad.isfinite().all())


@pytest.mark.parametrize("p", [0, 0.99, -3, 100.5, float("nan"), float("inf")])
def test_exponents_out_of_range_are_refused(p):
    for build in (GeM, lambda p: RegionalGeM(5, 32, p)):
        with pytest.raises(ValueError, match="the exponent of GeM must be from 1 to 100"):
            build(p)


@pytest.mark.parametrize("name", ["spoc", "gem", "rgem"])
def test_every_cell_is_covered(name):
    coverage = pooling_of(name).coverage(torch.rand(1, 3, 3, 5), (96, 160))
    assert coverage.shape == (len(rmac_regions(96, 160, 5)) if name == "rgem" else 1, 15)
    assert bool(coverage.any(0).all())
