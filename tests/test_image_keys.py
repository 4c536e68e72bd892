import os

import numpy as np
import pytest
from conftest import draw_image
from PIL import Image

from utils.descriptors.keys import image_key, image_keys
from utils.images.loading import InputImage


def test_an_images_key_changes_with_its_file_its_name_and_its_box(tmp_path):
    path = tmp_path / "a.png"
    draw_image(path)
    first = image_key(InputImage(path), "a")
    assert image_key(InputImage(path), "a") == first
    others = {image_key(InputImage(path), "b"), image_key(InputImage(path, (0, 0, 8, 8)), "a")}
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    others.add(image_key(InputImage(path), "a"))
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    others.add(image_key(InputImage(path), "a"))
    assert len(others) == 4
    assert first not in others


def saved(path, pixels, **options):
    """Save an image to a file with modification time 0."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    os.utime(path, ns=(0, 0))
    return InputImage(path)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("ppm", {}),
        ("bmp", {}),
        ("tif", {}),
        ("tif", {"big_tiff": True}),
        ("png", {}),
        ("png", {"compress_level": 0}),
        ("jpg", {}),
    ],
)
def test_images_of_one_name_size_and_time_have_different_keys(tmp_path, suffix, options):
    """One of 120,000 pixels differs, so that a sample of the file would not show it."""
    one = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    two = one.copy()
    two[75, 100] ^= 64
    keys = [
        image_key(saved(tmp_path / name / f"a.{suffix}", pixels, **options), "a")
        for name, pixels in (("x", one), ("y", two))
    ]
    assert keys[0] != keys[1]


def test_a_copy_in_another_folder_has_the_same_key(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    one, two = (saved(tmp_path / name / "a.png", pixels) for name in "xy")
    assert image_key(one, "a").startswith("a\0")
    assert image_key(one, "a") == image_key(two, "a")


def test_keys_of_many_are_those_of_each_in_their_order(tmp_path):
    images = [saved(tmp_path / f"{number}.png", np.full((8, 8, 3), number, np.uint8)) for number in range(40)]
    names = [f"n{number}" for number in range(40)]
    expected = [image_key(image, name) for image, name in zip(images, names, strict=True)]
    assert len(set(expected)) == 40
    assert image_keys(images, names) == expected


def test_what_cannot_be_read_has_a_key_of_its_name_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "absent"):
        assert image_key(InputImage(tmp_path / name), name) == f"{name}\0\0\0\0"
