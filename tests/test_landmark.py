import os

import pytest
from conftest import draw_image

from utils.data.landmark import find_images, select_large_images
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A folder of images at the top and three levels below, as in Google Landmarks v2."""
    for seed, name in enumerate(("top", "0/0/1/001a", "0/0/1/001b", "f/e/0/fe0c")):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(path, seed)
    return tmp_path


def test_all_images_below_the_folder_are_learned_from(folder, caplog):
    draw_image(folder / "0" / "001a_thumb.jpg")
    expected = ["0/0/1/001a.jpg", "0/0/1/001b.jpg", "f/e/0/fe0c.jpg", "top.jpg"]
    assert find_images([folder], None, 0) == [folder / name for name in expected]
    assert "left out 1 thumbnails or folders of thumbnails (0/001a_thumb.jpg)" in caplog.text
    drawn = {tuple(find_images([folder], 2, seed)) for seed in range(20)}
    assert len(drawn) == 6  # pairs of four
    assert all(list(pair) == sorted(pair) for pair in drawn)


def test_folders_are_read_one_after_the_other_and_an_image_in_two_of_them_counts_once(folder):
    names = ["f/e/0/fe0c.jpg", "0/0/1/001a.jpg", "0/0/1/001b.jpg", "top.jpg"]
    folders = [folder / "f", folder / "0", folder]
    assert find_images(folders, None, 0) == [folder / name for name in names]


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"no images in .* or the folders in it"):
        find_images([tmp_path], None, 0)
    with pytest.raises(UserError, match="is missing"):
        find_images([tmp_path / "nowhere"], None, 0)


def test_a_pipe_and_a_dangling_link_are_unreadable(folder, caplog):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "f" / "link.jpg").symlink_to("nowhere")
    selection = select_large_images(find_images([folder], None, 0), 64, 1)
    assert selection.unreadable == [folder / "f" / "link.jpg", folder / "pipe.jpg"]
    assert "left out 2 images that cannot be read" in caplog.text
    assert str(folder / "pipe.jpg") in caplog.text
    assert len(selection.paths) == 4
    assert selection.sizes[0] == (48, 64)


def test_a_note_counts_the_images_that_are_too_small_after_resizing(folder, caplog):
    draw_image(folder / "narrow.jpg", size=(160, 20))  # resized to 64 x 8
    selection = select_large_images(find_images([folder], None, 0), 64, 40)
    assert selection.small == [folder / "narrow.jpg"]
    assert "left out 1 of 5 images, resized to a longer side of 64, with a side under 40" in caplog.text
