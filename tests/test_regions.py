import math

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


def extra_regions_by_the_text(shorter, longer, number):
    """n of the method's text, computed in one type of number."""
    best, least = 0, number(math.inf)
    for position, s in enumerate(range(2, 8), start=1):
        shift = np.float32(longer - shorter) / np.float32(s - 1)
        overlap = (number(shorter**2) - number(np.float32(shorter) * shift)) / number(shorter**2)
        distance = abs(overlap - number(0.4))
        if distance < least:
            best, least = position, distance
    return best


def regions_by_the_text(height, width, levels, number=np.float32):
    shorter = min(height, width)
    extra = extra_regions_by_the_text(shorter, max(height, width), number)
    extra_x, extra_y = extra * (width > height), extra * (height > width)
    regions = []
    for level in range(1, levels + 1):
        side = math.floor(2 * shorter / (level + 1))
        half = math.floor(side / 2 - 1)
        starts = []
        for length, count in ((width, level + extra_x), (height, level + extra_y)):
            step = (length - side) / (count - 1) if count > 1 else 0
            places = [math.floor(half + i * step) - half for i in range(count)]
            starts.append([place - max(place + side - length, 0) for place in places])
        regions += [[x, y, side, side] for y in starts[1] for x in starts[0]]
    return regions


# At all these the overlaps of two numbers of regions are equally far from 0.4, but for rounding.
@pytest.mark.parametrize("size", [(5, 9), (25, 45), (40, 72), (72, 40), (225, 405), (25, 61), (55, 15)])
def test_the_number_of_regions_is_chosen_in_float32_on_small_images(size):
    expected = regions_by_the_text(*size, 5)
    assert rmac_regions(*size, 5).tolist() == expected
    assert expected != regions_by_the_text(*size, 5, number=np.float64)


@pytest.mark.parametrize(("size", "count"), [((250, 450), 70), ((500, 900), 85), ((900, 500), 85)])
def test_the_number_of_regions_is_chosen_in_float64_where_a_square_has_more_than_65535_pixels(size, count):
    number = np.float32 if min(size) ** 2 <= 65535 else np.float64
    expected = regions_by_the_text(*size, 5, number=number)
    assert rmac_regions(*size, 5).tolist() == expected
    assert len(expected) == count


def test_near_a_tie_the_first_number_of_regions_is_chosen_where_float32_is_nearer():
    # 9 - 5 = 4 pixels over: two regions overlap by 1/5, three by 3/5. In float32 1/5 is the nearer to 0.4, in
    # float64 3/5 is.
    assert rmac_regions(5, 9, 1).tolist() == [[0, 0, 5, 5], [4, 0, 5, 5]]


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


@pytest.mark.parametrize("arguments", [(0, 5, 1), (5, 0, 1)])
def test_nothing_has_no_regions(arguments):
    with pytest.raises(ValueError, match=">= 1"):
        rmac_regions(*arguments)
