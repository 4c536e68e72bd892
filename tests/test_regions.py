import numpy as np
import pytest
from conftest import golden_arrays

from models.poolings.regions import rmac_regions


def test_all_golden_grids_are_there():
    assert len(golden_arrays("regions")) == 92


@pytest.mark.parametrize("key", golden_arrays("regions"))
def test_regions_are_the_originals(key):
    height, width, levels = map(int, key.split("x"))
    np.testing.assert_array_equal(rmac_regions(height, width, levels), golden_arrays("regions")[key])


# At these sizes two numbers of regions are equally far from an overlap of 0.4, up to rounding. On 25 x 45
# pixels, two squares overlap by 1 - 20/25 = 0.2 and three by 1 - 10/25 = 0.6. In float32, 0.2 is nearer, in
# float64, 0.6.
@pytest.mark.parametrize(
    ("size", "starts"),
    [
        ((5, 9), [0, 4]),
        ((25, 45), [0, 20]),
        ((40, 72), [0, 32]),
        ((72, 40), [0, 32]),
        ((225, 405), [0, 180]),
        ((25, 61), [0, 12, 24, 36]),
        ((55, 15), [0, 10, 20, 30, 40]),
    ],
)
def test_the_number_of_regions_is_chosen_in_float32_on_small_images(size, starts):
    regions = rmac_regions(*size, 1)
    along, across = (0, 1) if size[1] > size[0] else (1, 0)
    assert regions[:, along].tolist() == starts
    assert not regions[:, across].any()


@pytest.mark.parametrize(("key", "count"), [("250x450x1", 2), ("500x900x1", 3)])
def test_the_number_of_regions_is_chosen_in_float64_where_a_square_has_more_than_65535_pixels(key, count):
    # The same tie as on 25 x 45 pixels: on the larger image, the original chooses the other number.
    height, width, levels = map(int, key.split("x"))
    assert len(golden_arrays("regions")[key]) == count
    assert len(rmac_regions(height, width, levels)) == len(rmac_regions(width, height, levels)) == count


def test_a_square_has_level_squared_regions_a_level():
    # Level 2 of 32 pixels: side floor(64 / 3) = 21, starting at pixels 0 and 11 in each direction.
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


@pytest.mark.parametrize("arguments", [(0, 5, 1), (5, 0, 1)])
def test_nothing_has_no_regions(arguments):
    with pytest.raises(ValueError, match=">= 1"):
        rmac_regions(*arguments)
