import numpy as np
import pytest

from utils.images.resize import bilinear_resize, taps


def random_resizes(count):
    """Images of random sizes and sides to resize them to: sides from 1 pixel on, shrunk and enlarged."""
    rng = np.random.default_rng(0)
    for number in range(count):
        height, width, *size = np.exp(rng.uniform(0, np.log(500), 4)).astype(int).tolist()
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if number % 3 == 0:
            pixels[...] = pixels[..., :1]  # grey
        if number % 5 == 0:
            pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
        yield pixels, tuple(size)


def test_equals_opencv_in_every_value():
    cv2 = pytest.importorskip("cv2")
    for pixels, (height, width) in random_resizes(500):
        expected = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(
            bilinear_resize(pixels, height, width), expected, f"{pixels.shape} to {height} x {width}"
        )


@pytest.mark.parametrize("size", [(768, 1024), (1, 1024), (1024, 1), (1200, 1600), (37, 4000)])
def test_equals_opencv_on_large_images(size):
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    expected = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(bilinear_resize(pixels, *size), expected)


def resize_by_the_text(pixels, height, width):
    """The method's integer arithmetic, one pixel after the other."""
    x, y = taps(pixels.shape[1], width, clamp_weights=True), taps(len(pixels), height)
    wide = pixels.astype(int)
    out = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            sums = []
            for source, weight in (
                (y.first[row], y.first_weight[row]),
                (y.second[row], y.second_weight[row]),
            ):
                a, b = int(x.first_weight[column]), int(x.second_weight[column])
                r = a * wide[source, x.first[column]] + b * wide[source, x.second[column]]
                sums.append(((r >> 4) * int(weight)) >> 16)
            out[row, column] = ((sums[0] + sums[1] + 2) >> 2).clip(0, 255)
    return out


@pytest.mark.parametrize("size", [(5, 7), (40, 11), (3, 60), (1, 1)])
def test_equals_the_arithmetic_pixel_by_pixel(size):
    pixels = np.random.default_rng(2).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    np.testing.assert_array_equal(bilinear_resize(pixels, *size), resize_by_the_text(pixels, *size))


def test_taps_by_hand():
    # Two pixels to four: positions -0.25, 0.25, 0.75 and 1.25.
    x, y = taps(2, 4, clamp_weights=True), taps(2, 4)
    assert x.first.tolist() == [0, 0, 0, 1]
    assert x.second_weight.tolist() == [0, 512, 1536, 0]
    assert y.first.tolist() == [0, 0, 0, 1]
    assert y.second.tolist() == [0, 1, 1, 1]
    assert y.first_weight.tolist() == [512, 1536, 512, 1536]


def test_rows_that_are_not_contiguous_are_resized_alike():
    pixels = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    turned = pixels.transpose(1, 0, 2)[::-1]
    expected = bilinear_resize(turned.copy(), 50, 25)
    np.testing.assert_array_equal(bilinear_resize(turned, 50, 25), expected)


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_an_image_of_one_colour_keeps_it(level):
    pixels = np.full((33, 21, 3), level, np.uint8)
    assert (bilinear_resize(pixels, 70, 13) == level).all()
