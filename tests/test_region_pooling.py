import numpy as np
import pytest
import torch
from conftest import golden_arrays, golden_inputs
from reference import pool_regions

from models.poolings.region_pooling import cell_grid, has_cells, region_max, region_mean
from models.poolings.regions import rmac_regions


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("image_size", "map_size"),
    [
        ((768, 1024), (24, 32)),
        ((1024, 300), (32, 10)),
        ((97, 131), (3, 5)),
        ((33, 35), (1, 1)),
        ((1, 64), (1, 2)),
    ],
)
def test_pools_equal_those_computed_region_by_region(image_size, map_size, memory_format):
    features = torch.randn(2, 8, *map_size, generator=torch.Generator().manual_seed(0))
    grid = cell_grid(image_size, map_size, 5, 32)
    regions = rmac_regions(*image_size, 5)
    given = features.to(memory_format=memory_format)
    for image, maxima, means in zip(
        features.numpy(), region_max(given, grid), region_mean(given, grid), strict=True
    ):
        np.testing.assert_array_equal(maxima, pool_regions(image, regions, np.max).astype(np.float32))
        np.testing.assert_allclose(means, pool_regions(image, regions, np.mean), atol=1e-6)


@pytest.mark.parametrize(
    ("file", "size"),
    [(file, size) for file in ("head", "head_small") for size in golden_inputs(file, "features")],
)
def test_maxima_are_the_originals(file, size):
    arrays = golden_arrays(file)
    name = "x".join(map(str, size))
    features = torch.from_numpy(arrays[f"{name}/features"]).float().unsqueeze(0)
    maxima = region_max(features, cell_grid(size, tuple(features.shape[-2:]), 5, 32))[0, :, ::64]
    np.testing.assert_allclose(maxima, arrays[f"{name}/region_max"], rtol=1e-4)


def test_means_are_differentiable_after_an_evaluation():
    grid = cell_grid((64, 64), (2, 2), 2, 32)
    with torch.inference_mode():
        region_mean(torch.ones(1, 1, 2, 2), grid)
    features = torch.ones(1, 1, 2, 2, requires_grad=True)
    region_mean(features, grid).sum().backward()
    assert float(features.grad.sum()) == pytest.approx(5)  # five regions, each the mean of its cells


def test_a_region_beyond_the_map_is_zero():
    # An input of 33 pixels has one cell. The level-2 region from pixel 11 begins in cell 0, the level-5
    # region from pixel 22 in cell 1, which does not exist.
    grid = cell_grid((33, 33), (1, 1), 5, 32)
    features = torch.full((1, 1, 1, 1), -3.0)
    pooled = region_max(features, grid)[0, :, 0]
    assert pooled[:5].tolist() == [-3.0] * 5
    assert pooled[-1] == 0
    assert region_mean(features, grid)[0, -1, 0] == 0
    occupied = has_cells(grid, features.device).tolist()
    assert occupied == (pooled != 0).tolist()
