import numpy as np
import pytest
from conftest import golden_arrays

from models.regions import rmac_regions


@pytest.mark.parametrize("key", golden_arrays("regions"))
def test_regions_are_the_originals(key):
    height, width, levels = map(int, key.split("x"))
    np.testing.assert_array_equal(rmac_regions(height, width, levels), golden_arrays("regions")[key])


def test_a_square_has_level_squared_regions_a_level():
    # Level 2 of 32 pixels: side floor(64 / 3) = 21, two of them in each direction, the second 11 further.
    expected = [[0, 0, 32, 32], [0, 0, 21, 21], [11, 0, 21, 21], [0, 11, 21, 21], [11, 11, 21, 21]]
    assert rmac_regions(32, 32, 2).tolist() == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (2, 3), (31, 4000), (5000, 4999)])
def test_every_region_lies_in_the_image(size):
    x, y, w, h = rmac_regions(*size, 5).T
    assert min(x.min(), y.min()) >= 0
    assert (x + w).max() <= size[1]
    assert (y + h).max() <= size[0]
    assert (w == h).all()
    assert w.max() == min(size)


@pytest.mark.parametrize("arguments", [(0, 5, 1), (5, 0, 1), (5, 5, 0)])
def test_nothing_has_no_regions(arguments):
    with pytest.raises(ValueError, match=">= 1"):
        rmac_regions(*arguments)
