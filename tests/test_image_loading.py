import errno
import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from conftest import SHARED, draw_image, golden_arrays, needs_photographs
from PIL import Image, ImageOps

from utils.errors import UserError
from utils.images.loading import (
    EmptyBoxError,
    InputImage,
    UnreadableImageError,
    check_box,
    image_size,
    load_pixels,
    read_image,
    resize,
    resized_size,
)


@needs_photographs
@pytest.mark.parametrize("key", golden_arrays("preprocess"))
def test_pixels_are_the_originals(key):
    name, longer_side, box = key.split("|")
    path = SHARED / "data" / "datasets" / "Landmarks" / "jpg" / name
    box = tuple(map(float, box.split(","))) if box else None
    pixels = load_pixels(InputImage(path, box), int(longer_side)).numpy()
    np.testing.assert_array_equal(pixels[..., ::-1].transpose(2, 0, 1), golden_arrays("preprocess")[key])


def test_enlarges_between_pixel_centres():
    # Two pixels to four: centres at -0.25, 0.25, 0.75, 1.25 of the original, the outer two clamped.
    pixels = np.array([[[0] * 3, [100] * 3]], np.uint8)
    assert resize(pixels, 4)[:, :, 0].tolist() == [[0, 25, 75, 100]] * 2


def test_shrinks_without_antialiasing():
    # Twelve pixels to four: centres at 1, 4, 7, 10. Pixels between them have no effect.
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
    draw_image(tmp_path / "upright.png")
    image = Image.open(tmp_path / "upright.png")
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(expected, np.array(image)) == (orientation == 1)
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_invalid_exif_data_are_ignored(tmp_path):
    path = tmp_path / "invalid.jpg"
    Image.new("RGB", (4, 2), (255, 0, 0)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_image(path).shape == (2, 4, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_whose_exif_data_cannot_be_parsed_is_read_as_upright(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_image(path)
    Image.open(path).save(path, exif=exif)
    pixels = np.array(Image.open(path))
    assert image_size(path) == (64, 48)  # turned, because its EXIF data can be parsed

    def fail(image):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    np.testing.assert_array_equal(read_image(path), pixels)
    assert image_size(path) == (48, 64)


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
    path = tmp_path / "image.tif"
    Image.new(mode, (3, 2), color).save(path)
    assert read_image(path)[1, 2].tolist() == list(expected)


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 255, 256, 0x8070, 0xFFFF]], np.uint16)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]


def tiff(pixels, sample_format, photometric=1, bits=None, width=None):
    """Return the bytes of a TIFF file with one strip of pixels."""
    height, count = pixels.shape
    data = pixels.tobytes()
    tags = [(256, width or count), (257, height), (258, bits or 8 * pixels.itemsize), (259, 1)]
    tags += [(262, photometric), (273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, height), (279, len(data))]
    tags += [(339, sample_format)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + bytes(4) + data


UNSIGNED, SIGNED, REAL = 1, 2, 3


@pytest.mark.parametrize(
    ("pixels", "options", "expected"),
    [
        # Expected values by OpenCV's imread.
        (np.array([[0, 255, 256, 0x8070, 0xFFFF]], "<u2"), {}, [0, 0, 1, 0x80, 0xFF]),
        (np.array([[0, 255, 256, -5, 0x7FFF]], "<i2"), {"sample_format": SIGNED}, [0, 0, 1, 0xFF, 0x7F]),
        (np.array([[0, 255, 256, 0xFFFF, 0x7FFF]], "<u2"), {"photometric": 0}, [0xFF, 0xFF, 0xFE, 0, 0x80]),
        (np.array([[0, 7, 255]], np.uint8), {"photometric": 0}, [255, 248, 0]),
        # 12 bits per pixel: 0xFF0, 0x80F, which OpenCV cannot read.
        (np.array([[0xFF, 0x08, 0x0F]], np.uint8), {"bits": 12, "width": 2}, [0xFF, 0x80]),
    ],
)
def test_grey_tiffs_of_9_to_16_bits_keep_the_upper_eight(tmp_path, pixels, options, expected):
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff(pixels, **{"sample_format": UNSIGNED} | options))
    assert read_image(path)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_either_byte_order_keep_the_upper_eight(tmp_path, order):
    path = tmp_path / "deep.tif"
    pixels = np.array([[0, 255, 256, 0x8070, 0xFFFF]], f"{order}u2")
    mode = "I;16" if order == "<" else "I;16B"
    Image.frombytes(mode, (5, 1), pixels.tobytes()).save(path)
    assert Image.open(path).mode == mode
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]


def test_a_pgm_of_16_bits_keeps_the_upper_eight(tmp_path):
    (tmp_path / "deep.pgm").write_bytes(
        b"P5 5 1 65535\n" + np.array([0, 255, 256, 0x8070, 0xFFFF], ">u2").tobytes()
    )
    assert read_image(tmp_path / "deep.pgm")[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]


@pytest.mark.parametrize(
    ("pixels", "sample_format", "kind"),
    [
        (np.linspace(0, 1, 5, dtype="<f4")[None], REAL, "real numbers"),
        (np.arange(0, 2**31 - 1, 2**29, dtype="<i4")[None], SIGNED, "integers of 32 bits"),
        (np.arange(0, 2**32 - 1, 2**30, dtype="<u4")[None], UNSIGNED, "integers of 32 bits"),
        (np.linspace(0, 1, 5, dtype="<f8")[None], REAL, "its format is unknown"),
    ],
)
def test_a_tiff_without_a_level_for_white_is_unreadable_rather_than_black(
    tmp_path, pixels, sample_format, kind
):
    path = tmp_path / "scientific.tif"
    path.write_bytes(tiff(pixels, sample_format))
    with pytest.raises(UnreadableImageError, match=rf"scientific\.tif cannot be decoded: .*{kind}"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_adobes_inverted_cmyk_becomes_colour(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(path)
    assert (b"Adobe" in path.read_bytes()) == (suffix == "jpg")
    assert np.abs(read_image(path)[8, 8].astype(int) - [0, 255, 255]).max() <= 2


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("LAB", (255, 128, 128), (255, 255, 255)),  # stored with a and b as signed bytes, 0 being grey
        ("LAB", (137, 128, 128), (128, 128, 128)),  # L* 53.7 of 100 is sRGB's middle grey
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
    ],
)
def test_other_colour_spaces_become_rgb(tmp_path, mode, color, expected):
    path = tmp_path / "image.tif"
    Image.new(mode, (16, 16), color).save(path)
    if Image.open(path).mode != mode:
        pytest.skip("this Pillow cannot read uncompressed YCbCr")
    assert np.abs(read_image(path)[8, 8].astype(int) - expected).max() <= 2


@pytest.mark.parametrize("part", ["checksum", "data"])
def test_a_png_with_a_wrong_checksum_is_unreadable(tmp_path, part):
    path = tmp_path / "flipped.png"
    draw_image(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start])
    content[start + 4 + (length if part == "checksum" else length - 1)] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"flipped\.png cannot be decoded: .*checksum"):
        read_image(path)


def write_black(path, width, height):
    """Write a black PNG of one bit per pixel."""
    row = bytes(1 + (width + 7) // 8)
    compressor = zlib.compressobj()
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )


def test_a_photograph_of_100_megapixels_is_read_without_a_warning(tmp_path):
    write_black(tmp_path / "large.png", 10_000, 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(tmp_path / "large.png") == (10_000, 10_000)
        assert read_image(tmp_path / "large.png").shape == (10_000, 10_000, 3)


def test_an_image_of_more_than_178_megapixels_is_unreadable(tmp_path):
    write_black(tmp_path / "huge.png", 20_000, 10_000)
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImageError, match="it has more than 178 megapixels"):
            read(tmp_path / "huge.png")


def test_an_unreadable_image_passes_between_processes(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImageError) as raised:
        read_image(tmp_path / "pipe.jpg")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


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
    draw_image(path)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(UnreadableImageError, match=r"broken\.jpg cannot be decoded"):
        read_image(path)


@pytest.fixture
def ramp(tmp_path):
    """An image of 100 x 40 pixels whose red value is the column and green the row."""
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
    pixels = load_pixels(InputImage(ramp, box), 100)
    assert torch.equal(pixels[0, :, 0], torch.arange(*columns, dtype=torch.uint8))
    assert torch.equal(pixels[:, 0, 1], torch.arange(*rows, dtype=torch.uint8))


def test_a_box_is_scaled_with_its_image(ramp):
    assert load_pixels(InputImage(ramp, (10, 10, 30, 20)), 200).shape == (20, 40, 3)


@pytest.mark.parametrize("box", [(100, 0, 120, 40), (0, 0, 0.4, 40), (50, 0, 40, 40), (0, -9, 100, -1)])
def test_a_box_without_a_pixel_is_an_error(ramp, box):
    for use in (load_pixels, check_box):
        with pytest.raises(EmptyBoxError, match="no pixel inside"):
            use(InputImage(ramp, box), 100)


def test_a_box_beyond_what_float32_holds_is_clamped(tmp_path):
    path = tmp_path / "image.png"
    draw_image(path)
    full_image = load_pixels(InputImage(path), 32)
    assert load_pixels(InputImage(path, (-1e300, -1e38, 1e39, 1e300)), 32).equal(full_image)
    with pytest.raises(EmptyBoxError):
        load_pixels(InputImage(path, (1e39, 0, 1e300, 10)), 32)


def test_a_resized_image_larger_than_the_memory_is_an_error(tmp_path):
    path = tmp_path / "image.png"
    draw_image(path)
    with pytest.raises(UserError, match="try a smaller --S"):
        load_pixels(InputImage(path), 10_000_000)


@pytest.mark.parametrize("shortage", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_shortage_is_an_error_and_no_unreadable_image(tmp_path, monkeypatch, read, shortage):
    def fail(*_, **options):
        raise shortage

    draw_image(tmp_path / "fine.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"fine\.png cannot be decoded now: (the memory|too many)") as caught:
        read(tmp_path / "fine.png")
    assert not isinstance(caught.value, UnreadableImageError)
