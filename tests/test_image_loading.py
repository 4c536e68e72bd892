import warnings

import numpy as np
import pytest
import torch
from conftest import SHARED, draw_picture, needs_photographs
from PIL import Image, ImageOps

from utils.errors import UserError
from utils.image_loading import (
    EmptyBoxError,
    Picture,
    UnreadableImageError,
    check_box,
    load_pixels,
    picture_size,
    read_image,
    resize,
    resized_size,
)


@needs_photographs
def test_pixels_are_opencvs_to_one_level():
    golden = np.load(SHARED / "golden" / "preprocess.npz")
    assert len(golden.files) == 4
    for key in golden.files:
        name, longer_side, box = key.split("|")
        path = SHARED / "data" / "datasets" / "Landmarks" / "jpg" / name
        box = tuple(map(float, box.split(","))) if box else None
        pixels = load_pixels(Picture(path, box), int(longer_side)).numpy()
        bgr = pixels[..., ::-1].transpose(2, 0, 1).astype(int)
        assert bgr.shape == golden[key].shape
        difference = np.abs(bgr - golden[key])
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.15  # OpenCV's own fixed-point rounding


def test_enlarges_between_pixel_centres():
    # Two pixels to four: centres at -0.25, 0.25, 0.75, 1.25 of the original, the outer two clamped.
    pixels = np.array([[[0] * 3, [100] * 3]], np.uint8)
    assert resize(pixels, 4)[:, :, 0].tolist() == [[0, 25, 75, 100]] * 2


def test_shrinks_without_antialiasing():
    # Twelve pixels to four: centres at 1, 4, 7, 10, whatever lies between them.
    pixels = np.zeros((3, 12, 3), np.uint8)
    pixels[1, [1, 4, 7, 10]] = [[10], [20], [30], [40]]
    assert resize(pixels, 4)[:, :, 0].tolist() == [[10, 20, 30, 40]]


@pytest.mark.parametrize(
    ("size", "longer_side", "expected"),
    [
        ((375, 500), 1024, (768, 1024)),
        ((5, 10), 5, (2, 5)),
        ((7, 10), 5, (4, 5)),
        ((1, 4000), 1024, (1, 1024)),
    ],
)
def test_sides_are_rounded_halves_to_even_and_never_vanish(size, longer_side, expected):
    assert resized_size(*size, longer_side) == expected


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    path = tmp_path / f"turned.{suffix}"
    draw_picture(tmp_path / "upright.png")
    image = Image.open(tmp_path / "upright.png")
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(expected, np.array(image)) == (orientation == 1)
    np.testing.assert_array_equal(read_image(path), expected)
    assert picture_size(path) == expected.shape[:2]


def test_damaged_exif_data_do_not_matter(tmp_path):
    path = tmp_path / "damaged.jpg"
    Image.new("RGB", (4, 2), (255, 0, 0)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_image(path).shape == (2, 4, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_whose_exif_data_cannot_be_parsed_is_read_as_upright(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_picture(path)
    Image.open(path).save(path, exif=exif)
    pixels = np.array(Image.open(path))
    assert picture_size(path) == (64, 48)  # turned, as long as its EXIF data are whole

    def fail(image):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    np.testing.assert_array_equal(read_image(path), pixels)
    assert picture_size(path) == (48, 64)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("LA", (90, 5), (90, 90, 90)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_every_mode_becomes_colour(tmp_path, mode, color, expected):
    path = tmp_path / "picture.tif"
    Image.new(mode, (3, 2), color).save(path)
    assert read_image(path)[1, 2].tolist() == list(expected)


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 255, 256, 0x8070, 0xFFFF]], np.uint16)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]


@pytest.mark.parametrize(
    ("suffix", "transparency"),
    [("png", None), ("png", 1), ("png", bytes([255, 0, 128])), ("gif", None), ("gif", 1)],
)
def test_a_palettes_colours_are_read_without_a_warning(tmp_path, suffix, transparency):
    path = tmp_path / f"palette.{suffix}"
    image = Image.new("P", (4, 1))
    image.putdata([2, 1, 0, 1])
    image.putpalette([0, 0, 255, 200, 100, 50, 7, 8, 9])
    image.save(path, **({} if transparency is None else {"transparency": transparency}))
    assert Image.open(path).mode == "P"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path)[0].tolist() == [[7, 8, 9], [200, 100, 50], [0, 0, 255], [200, 100, 50]]


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_what_cannot_be_decoded_is_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    draw_picture(path)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(UnreadableImageError, match=r"broken\.jpg cannot be decoded"):
        read_image(path)


@pytest.fixture
def ramp(tmp_path):
    """100 x 40 pixels whose red is the column and green the row."""
    path = tmp_path / "ramp.png"
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[..., 0] = np.arange(100)
    pixels[..., 1] = np.arange(40)[:, None]
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        ((10, 5, 20, 9), (10, 20), (5, 9)),
        ((10.5, 5.5, 20.5, 9.5), (10, 20), (6, 10)),  # halves to even
        ((-30, -1, 3, 1000), (0, 3), (0, 40)),
    ],
)
def test_a_box_is_cut_out_after_resizing_and_clamped(ramp, box, columns, rows):
    pixels = load_pixels(Picture(ramp, box), 100)
    assert torch.equal(pixels[0, :, 0], torch.arange(*columns, dtype=torch.uint8))
    assert torch.equal(pixels[:, 0, 1], torch.arange(*rows, dtype=torch.uint8))


def test_a_box_is_scaled_with_its_image(ramp):
    assert load_pixels(Picture(ramp, (10, 10, 30, 20)), 200).shape == (20, 40, 3)


@pytest.mark.parametrize("box", [(100, 0, 120, 40), (0, 0, 0.4, 40), (50, 0, 40, 40), (0, -9, 100, -1)])
def test_a_box_without_a_pixel_is_an_error(ramp, box):
    for use in (load_pixels, check_box):
        with pytest.raises(EmptyBoxError, match="no pixel inside"):
            use(Picture(ramp, box), 100)


def test_a_box_beyond_what_float32_holds_is_clamped(tmp_path):
    path = tmp_path / "picture.png"
    draw_picture(path)
    whole = load_pixels(Picture(path), 32)
    assert load_pixels(Picture(path, (-1e300, -1e38, 1e39, 1e300)), 32).equal(whole)
    with pytest.raises(EmptyBoxError):
        load_pixels(Picture(path, (1e39, 0, 1e300, 10)), 32)


def test_a_resized_image_larger_than_the_memory_is_told(tmp_path):
    path = tmp_path / "picture.png"
    draw_picture(path)
    with pytest.raises(UserError, match="try a smaller --S"):
        load_pixels(Picture(path), 10_000_000)
