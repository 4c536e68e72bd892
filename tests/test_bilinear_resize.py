import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from utils.images import resize
from utils.images.resize import bilinear_resize, taps

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys
import numpy as np
import utils.images.loading
from utils.images.resize import INTERPRETED_IMAGES, bilinear_resize
pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
for _ in range(INTERPRETED_IMAGES):
    first = bilinear_resize(pixels, 1, 3)
assert "numba" not in sys.modules
{preparation}
last = bilinear_resize(pixels, 1, 3)
assert "numba" in sys.modules
assert (first == last).all()
print(last.ravel().tolist())
"""
"""A program that checks when Numba is imported, and prints two pixels enlarged to three."""

THREE_PIXELS = "[0, 1, 2, 2, 3, 4, 3, 4, 5]\n"
"""The first pixel, the mean of both with halves rounded up, and the second."""


@pytest.fixture(autouse=True, params=["interpreted", "compiled"])
def method(request, monkeypatch):
    """Resize all images of a test by one of the two methods."""
    monkeypatch.setattr(resize, "INTERPRETED_IMAGES", {"interpreted": 10**9, "compiled": 0}[request.param])


def random_resizes(count):
    """Yield random images and sizes to resize them to, smaller and larger, with sides of 1 to 500 pixels."""
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


def extreme_images(height, width):
    """Yield an image of 255, and images of 0 and 255 alternating along x, y or both; channel 3 inverted."""
    rows, columns = np.indices((height, width))
    for bright in (rows >= 0, columns % 2 == 0, rows % 2 == 0, (rows + columns) % 2 == 0):
        yield np.where(np.stack([bright, bright, ~bright], axis=2), 255, 0).astype(np.uint8)


@pytest.mark.parametrize("target", [(1, 7), (7, 1), (5, 6), (90, 100), (1, 5891), (5891, 1), (5775, 2)])
@pytest.mark.parametrize("source", [(1, 1), (1, 64), (64, 1), (3, 3), (65, 48)])
def test_equals_opencv_on_extreme_values(source, target):
    cv2 = pytest.importorskip("cv2")
    for pixels in extreme_images(*source):
        expected = cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(bilinear_resize(pixels, *target), expected)


def test_weights_whose_sum_is_not_one_equal_opencvs_along_both_axes():
    # Rounded one by one, the weights of a few positions add up to 2049 or 2047.
    cv2 = pytest.importorskip("cv2")
    x, y = taps(3, 5891, clamp_weights=True), taps(3, 5815)
    assert (x.first_weight + x.second_weight).max() == 2049
    assert (y.first_weight + y.second_weight).min() == 2047
    pixels = np.full((3, 3, 3), 255, np.uint8)
    for width, height in ((5891, 12), (12, 5891), (5815, 12), (12, 5815)):
        expected = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(bilinear_resize(pixels, height, width), expected)


def resize_by_definition(pixels, height, width):
    """Resize by the integer arithmetic of the method, pixel by pixel."""
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
    np.testing.assert_array_equal(bilinear_resize(pixels, *size), resize_by_definition(pixels, *size))


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
    np.testing.assert_array_equal(bilinear_resize(turned, 50, 25), resize_by_definition(turned, 50, 25))


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_an_image_of_one_colour_keeps_it(level):
    pixels = np.full((33, 21, 3), level, np.uint8)
    assert (bilinear_resize(pixels, 70, 13) == level).all()


def test_read_only_images_are_resized_alike():
    pixels = np.random.default_rng(4).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    pixels.setflags(write=False)
    np.testing.assert_array_equal(bilinear_resize(pixels, 12, 30), resize_by_definition(pixels, 12, 30))


def test_threads_do_not_disturb_each_other():
    images = list(random_resizes(40))
    expected = [bilinear_resize(pixels, *size) for pixels, size in images]
    with ThreadPoolExecutor(4) as pool:
        resized = list(pool.map(lambda image: bilinear_resize(image[0], *image[1]), images))
    for (_, size), result, separate in zip(images, resized, expected, strict=True):
        assert result.shape == (*size, 3)
        np.testing.assert_array_equal(result, separate)


def resize_in_a_process(cache_folder, preparation=""):
    """Return what PROGRAM prints, with warnings as errors and at most 64 open files."""
    program = PROGRAM.format(preparation=preparation)
    result = subprocess.run(
        ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache_folder)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_the_compiled_code_is_cached_and_an_unreadable_cache_is_ignored(tmp_path):
    assert resize_in_a_process(tmp_path) == THREE_PIXELS
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for path in files:
        path.write_bytes(b"")
    assert resize_in_a_process(tmp_path) == THREE_PIXELS


def test_works_without_a_folder_for_the_cache(tmp_path):
    no_folder = "import numba.core.caching\nnumba.core.caching.CacheImpl._locator_classes = []"
    assert resize_in_a_process(tmp_path, no_folder) == THREE_PIXELS
    assert not list(tmp_path.iterdir())
