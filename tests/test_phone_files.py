"""HEIC images, RAW files and live photos, as phones and cameras write them."""

import sys

import numpy as np
import pytest
from conftest import draw_image
from PIL import Image

import Search_Images
from utils.data.labelled_images import _read_class_folders
from utils.data.oxford_paris import read_images
from utils.images.listing import images_below, images_in
from utils.images.loading import InputImage, UnreadableImageError, image_size, load_pixels, read_image

NEEDS_PACKAGE = "HEIC images need the package pillow-heif: pip install pillow-heif"


@pytest.fixture
def without_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def draw_heic(path, seed=0, size=(64, 48), **options):
    """Write an image to a HEIC file, without loss unless options say otherwise; return its pixels."""
    pillow_heif = pytest.importorskip("pillow_heif")
    draw_image(path.with_suffix(".png"), seed, size)
    with Image.open(path.with_suffix(".png")) as image:
        lossless = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
        pillow_heif.from_pillow(image).save(path, **(options or lossless))
        pixels = np.array(image)
    path.with_suffix(".png").unlink()
    return pixels


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_pixels_of_a_heic_file_are_those_that_were_written(tmp_path):
    pixels = draw_heic(tmp_path / "a.heic")
    np.testing.assert_array_equal(read_image(tmp_path / "a.heic"), pixels)
    assert image_size(tmp_path / "a.heic") == (48, 64)


def test_a_heic_file_of_any_name_is_read(tmp_path):
    pixels = draw_heic(tmp_path / "a.heic")
    (tmp_path / "a.heic").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), pixels)
    (tmp_path / "a.jpg").rename(tmp_path / "a")
    np.testing.assert_array_equal(read_image(tmp_path / "a"), pixels)
    assert images_in(tmp_path).images == [tmp_path / "a"]


def test_a_heic_image_that_was_turned_is_upright(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    draw_image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6  # to be turned clockwise by a quarter
        image.save(tmp_path / "a.heic", exif=exif.tobytes(), quality=-1, chroma=444, matrix_coefficients=0)
        turned = np.rot90(np.array(image), k=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.heic"), turned)
    assert image_size(tmp_path / "a.heic") == (64, 48)
    part = load_pixels(InputImage(tmp_path / "a.heic", (0, 0, 20, 30)), longer_side=64).numpy()
    np.testing.assert_array_equal(part, turned[:30, :20])


def test_a_heic_file_has_the_descriptor_of_its_pixels_in_png(tmp_path):
    draw_heic(tmp_path / "a.heic", size=(96, 64), quality=60)
    Image.fromarray(read_image(tmp_path / "a.heic")).save(tmp_path / "a.png")
    pooling = {"S": 64, "pooling": "rmac", "whiten": False, "device": "cpu"}
    one, two = Search_Images.describe([tmp_path / "a.heic", tmp_path / "a.png"], **pooling)
    np.testing.assert_array_equal(one, two)
    assert np.linalg.norm(one) == pytest.approx(1)


def test_a_heic_file_cut_short_cannot_be_decoded(tmp_path):
    draw_heic(tmp_path / "a.heic")
    data = (tmp_path / "a.heic").read_bytes()
    for length in (40, len(data) // 2, len(data) - 10):
        (tmp_path / "a.heic").write_bytes(data[:length])
        with pytest.raises(UnreadableImageError):
            read_image(tmp_path / "a.heic")


def test_without_the_package_a_heic_file_names_it(tmp_path, without_package):
    header = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "a.heic").write_bytes(header)
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImageError, match=rf"a\.heic cannot be decoded: {NEEDS_PACKAGE}"):
            read(tmp_path / "a.heic")


@pytest.mark.parametrize(
    ("brands", "is_heic"),
    [
        ("heic----mif1heic", True),
        ("hevc----msf1hevc", True),
        ("mif1----mif1miafheic", True),
        ("mif1----mif1avif", False),
        ("avif----mif1miaf", False),
        ("isom----mp42", False),
    ],
)
def test_heic_without_a_suffix_is_told_from_other_files_of_its_container(
    tmp_path, without_package, brands, is_heic
):
    (tmp_path / "photo").write_bytes(b"\0\0\0\x20ftyp" + brands.replace("-", "\0").encode())
    assert images_in(tmp_path).heif == ([tmp_path / "photo"] if is_heic else [])


def test_heic_files_are_images_only_with_the_package(tmp_path, monkeypatch):
    pytest.importorskip("pillow_heif")
    touched(tmp_path, "a.HEIC", "b/c.heif", "d.hif", "e.jpg", "f_thumb.heic")
    heic = [tmp_path / "a.HEIC", tmp_path / "b" / "c.heif", tmp_path / "d.hif"]
    contents = images_below(tmp_path)
    assert contents.images == [heic[0], heic[1], heic[2], tmp_path / "e.jpg"]
    assert not contents.heif
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    contents = images_below(tmp_path)
    assert contents.images == [tmp_path / "e.jpg"]
    assert contents.heif == heic
    assert contents.thumbnails == [tmp_path / "f_thumb.heic"]


def test_raw_files_and_videos_of_live_photos_are_listed_separately(tmp_path, without_package):
    touched(
        tmp_path, "a.jpg", "a.DNG", "x/b.cr3", "x/b.nef", "x/c.heic", "x/c.MOV", "A.mp4", "film.mov", "b.mov"
    )
    contents = images_below(tmp_path)
    assert contents.images == [tmp_path / "a.jpg"]
    assert contents.raw == [tmp_path / "a.DNG", tmp_path / "x/b.cr3", tmp_path / "x/b.nef"]
    assert contents.live_videos == [tmp_path / "A.mp4", tmp_path / "x/c.MOV"]
    assert contents.others == [tmp_path / "b.mov", tmp_path / "film.mov"]


def test_a_search_of_photos_notes_each_kind_once(tmp_path, without_package, caplog):
    photos = touched(tmp_path / "photos", "1.heic", "2.heic", "1.mov", "3.arw", "3.raf", "more/4.dng")
    draw_image(photos / "5.png")
    made = Search_Images.index(
        photos, index=tmp_path / "index", S=64, pooling="rmac", whiten=False, device="cpu", workers=0
    )
    assert made.names == ["5.png"]
    assert caplog.messages == [
        "note: left out 2 HEIC images (1.heic, 2.heic), which need the package pillow-heif: "
        "pip install pillow-heif",
        "note: left out 3 RAW files (3.arw, 3.raf, more/4.dng) and 1 videos of live photos (1.mov)",
    ]


def test_data_sets_note_each_kind_once(tmp_path, without_package, caplog):
    touched(tmp_path / "Set", "jpg/a.jpg", "jpg/b.heic", "jpg/a.raf")
    assert list(read_images(tmp_path / "Set")) == ["a"]
    assert [line.split(" (")[0] for line in caplog.messages] == [
        "note: left out 1 HEIC images",
        "note: left out 1 RAW files",
    ]
    caplog.clear()
    classes = touched(tmp_path / "classes", "cat/1.jpg", "cat/2.dng", "dog/1.jpg", "dog/1.mp4", "dog/3.dng")
    assert {name: len(paths) for name, paths in _read_class_folders(classes).items()} == {"cat": 1, "dog": 1}
    assert caplog.messages == [
        "note: left out 2 RAW files (cat/2.dng, dog/3.dng) and 1 videos of live photos (dog/1.mp4)"
    ]
