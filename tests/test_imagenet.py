import os

import pytest
from conftest import SHARED, draw_image, needs_photographs

from utils.data.imagenet import read_training_images, read_wnids
from utils.data.imagenet_validation import read_validation_images
from utils.errors import UserError
from utils.training.crops import CentreCrops, CropSettings, crop_batches


@pytest.fixture
def folder(tmp_path):
    """A data set of two images of class 2, one of class 999, and a validation image per class from 0 to 4."""
    wnids = read_wnids()
    for wnid, count in ((wnids[2], 2), (wnids[999], 1)):
        (tmp_path / "train" / "data" / wnid).mkdir(parents=True)
        for number in range(count):
            draw_image(tmp_path / "train" / "data" / wnid / f"{wnid}_{number}.JPEG")
    (tmp_path / "val" / "data").mkdir(parents=True)
    for number in range(5):
        draw_image(tmp_path / "val" / "data" / f"v{number}.JPEG")
    write_listing(tmp_path, "".join(f"v{number}.JPEG {number}\n" for number in range(5)))
    return tmp_path


def write_listing(folder, text):
    (folder / "val" / "val.txt").write_text(text)


def test_the_wnids_are_a_thousand_sorted_ones():
    wnids = read_wnids()
    assert len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert wnids[0] == "n01440764"  # the tench


@needs_photographs
def test_the_wnids_are_those_of_ilsvrc():
    assert read_wnids() == (SHARED / "data" / "imagenet_wnids.txt").read_text().split()


def test_a_class_is_the_index_of_its_wnid_for_any_number_of_folders(folder):
    images = read_training_images(folder, 1000)
    assert images.classes.tolist() == [2, 2, 999]
    assert [path.name for path in images.paths] == [
        f"{read_wnids()[c]}_{n}.JPEG" for c, n in ((2, 0), (2, 1), (999, 0))
    ]


def test_folders_of_other_classes_are_read_if_the_classifier_fits(folder):
    data = folder / "train" / "data"
    (data / "aardvark").mkdir()
    draw_image(data / "aardvark" / "a.jpg")
    with pytest.raises(UserError, match=r"1 folders that are not ILSVRC wnids \(first: aardvark\)"):
        read_training_images(folder, 1000)
    assert read_training_images(folder, 3).classes.tolist() == [0, 1, 1, 2]


def test_images_in_folders_of_a_class_are_of_that_class(folder):
    wnid = read_wnids()[5]  # the layout of Tiny ImageNet
    path = folder / "train" / "data" / wnid / "images" / f"{wnid}_0"
    path.parent.mkdir(parents=True)
    draw_image(path.with_suffix(".png"))
    path.with_suffix(".png").rename(path)
    (folder / "train" / "data" / "@eaDir").mkdir()
    (folder / "train" / "data" / "@eaDir" / "x.jpg").touch()
    images = read_training_images(folder, 1000)
    assert images.classes.tolist() == [2, 2, 5, 999]
    assert images.paths[2] == path


def test_a_pipe_among_the_images_is_listed(folder):
    wnid = read_wnids()[2]
    os.mkfifo(folder / "train" / "data" / wnid / "pipe.JPEG")
    assert read_training_images(folder, 1000).paths[2].name == "pipe.JPEG"
    (folder / "val" / "data" / "v1.JPEG").unlink()
    os.mkfifo(folder / "val" / "data" / "v1.JPEG")
    images = read_validation_images(folder, 1000, 10, 0)
    assert images.paths[1].name == "v1.JPEG"
    batch = next(crop_batches(CentreCrops(images, CropSettings(32, 32, 32, "nearest")), [range(5)], 0))
    assert batch.classes.tolist() == [0, 2, 3, 4]
    assert batch.unreadable == [images.paths[1]]


def test_missing_or_empty_training_images_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"no training images: .* is missing"):
        read_training_images(tmp_path, 1000)
    (tmp_path / "train" / "data" / read_wnids()[0]).mkdir(parents=True)
    with pytest.raises(UserError, match="no training images in"):
        read_training_images(tmp_path, 1000)


def test_validation_images_are_drawn_once(folder):
    all_images = read_validation_images(folder, 1000, 100, 0)
    assert all_images.classes.tolist() == [0, 1, 2, 3, 4]
    assert [path.name for path in all_images.paths] == [f"v{number}.JPEG" for number in range(5)]
    part = read_validation_images(folder, 1000, 3, 1)
    assert len(set(part.paths)) == 3
    assert part.paths == read_validation_images(folder, 1000, 3, 1).paths
    draws = {tuple(read_validation_images(folder, 1000, 3, seed).paths) for seed in range(10)}
    assert len(draws) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v0.JPEG 0\n", "lacks a line for 4 files"),
        (
            "".join(f"v{n}.JPEG {n}\n" for n in range(6)),
            r"lists 1 files that are not in .* \(first: v5.JPEG\)",
        ),
        ("v0.JPEG\n", "line 1: expected"),
        ("v0.JPEG 0\nv1.JPEG 1000\n", r"line 2: expected '<file name> <class index 0\.\.999>'"),
        ("v0.JPEG -1\n", "line 1: expected"),
    ],
)
def test_an_invalid_listing_is_reported(folder, text, message):
    write_listing(folder, text)
    with pytest.raises(UserError, match=message):
        read_validation_images(folder, 1000, 10, 0)


def test_a_missing_listing_is_reported(folder):
    (folder / "val" / "val.txt").unlink()
    with pytest.raises(UserError, match=r"neither .*val\.txt nor .*LOC_val_solution\.csv exists"):
        read_validation_images(folder, 1000, 10, 0)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("v0.JPEG 0\n".encode("utf-16"), 1),
        (b"v0.JPEG 0\n\xe9.JPEG 1\n", 2),
        (b"v0.JPEG 0\n\x00\x01\x02", 2),
        (b"v0.JPEG 0\nv1.JPEG " + b"1" * 5000, 2),
        (b"v0.JPEG 0\nv0.JPEG 1\n", 2),
        ("v0.JPEG ٣\n".encode(), 1),
    ],
)
def test_a_listing_in_another_form_is_refused_with_the_line(folder, data, line):
    (folder / "val" / "val.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"val\.txt, line {line}:"):
        read_validation_images(folder, 1000, 10, 0)


def test_a_byte_order_mark_before_a_listing_is_accepted(folder):
    listing = folder / "val" / "val.txt"
    listing.write_bytes(b"\xef\xbb\xbf" + listing.read_bytes())
    assert read_validation_images(folder, 1000, 10, 0).classes.tolist() == [0, 1, 2, 3, 4]
