import os
import socket

import numpy as np
import pytest
from conftest import draw_image
from PIL import Image, features

from utils.errors import UserError
from utils.images.listing import images_below, images_in
from utils.images.loading import UnreadableImageError, image_size, read_image


def names(paths, folder):
    return [str(path.relative_to(folder)) for path in paths]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "2/1.jpeg", "10/1.tiff", "10/deep/er/1.webp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_all_images_below_a_folder_are_listed_in_the_order_of_their_paths(photos):
    for name in ("notes.txt", "10/photo.psd", ".hidden.jpg", "._a.PNG", ".thumbnails/b.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).touch()
    listing = images_below(photos)
    assert names(listing.images, photos) == ["10/1.tiff", "10/deep/er/1.webp", "2/1.jpeg", "a.PNG", "b.jpg"]
    assert names(listing.others, photos) == ["10/photo.psd", "notes.txt"]
    assert not listing.thumbnails
    assert not listing.folders


def test_images_right_in_a_folder_are_listed_beside_its_folders(photos):
    (photos / "@eaDir").mkdir()
    (photos / "b_thumb.jpg").touch()
    listing = images_in(photos)
    assert names(listing.images, photos) == ["a.PNG", "b.jpg", "b_thumb.jpg"]
    assert names(listing.folders, photos) == ["10", "2", "@eaDir"]
    assert not listing.others
    assert not listing.thumbnails


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir/b.jpg/SYNOPHOTO_THUMB_XL.jpg", "10/@eaDir/1.jpg", "Thumbs/b.jpg", "thumbnails/b.jpg"),
        *("10/@__thumb/b.jpg", "b_thumb.jpg", "10/IMG-Thumb.JPG", "b_thumbnail.png", "photos_thumbs/b.jpg"),
    ],
)
def test_thumbnails_are_left_out_and_listed(photos, name):
    before = images_below(photos).images
    (photos / name).parent.mkdir(parents=True, exist_ok=True)
    (photos / name).touch()
    listing = images_below(photos)
    assert listing.images == before
    assert len(listing.thumbnails) == 1
    assert name.startswith(names(listing.thumbnails, photos)[0])


@pytest.mark.parametrize("name", ["thumb.jpg.jpg", "Tom Thumb.jpg", "thumbprint.jpg", "greenthumb/b.jpg"])
def test_images_that_only_sound_like_thumbnails_are_images(photos, name):
    (photos / name).parent.mkdir(parents=True, exist_ok=True)
    (photos / name).touch()
    assert photos / name in images_below(photos).images


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "BigTIFF", "WEBP", "JPEG2000", "AVIF"]
)
def test_a_file_without_a_suffix_is_an_image_by_its_first_bytes(tmp_path, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    options = {"big_tiff": True} if kind == "BigTIFF" else {}
    Image.new("RGB", (16, 16), (0, 128, 0)).save(
        tmp_path / "oxford_000001", kind[-4:] if options else kind, **options
    )
    assert images_in(tmp_path).images == [tmp_path / "oxford_000001"]
    assert np.abs(read_image(tmp_path / "oxford_000001")[8, 8].astype(int) - [0, 128, 0]).max() < 6


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh", b"BMW and Audi, and others too, of 1999", b"P1 is done", b"RIFFxxxxWAVE", b"%PDF"],
)
def test_a_file_without_a_suffix_that_begins_otherwise_is_no_image(tmp_path, content):
    (tmp_path / "notes").write_bytes(content)
    assert not images_below(tmp_path).images
    assert images_below(tmp_path).others == [tmp_path / "notes"]


def test_an_image_with_another_suffix_is_no_image(tmp_path):
    draw_image(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.dat")
    assert images_in(tmp_path).others == [tmp_path / "a.dat"]


def irregular(folder, kind):
    path = folder / "x.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        os.chdir(folder)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("x.jpg")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.symlink_to("x.jpg")
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pipe", "it is a pipe, not a file"),
        ("device", "it is a device, not a file"),
        ("socket", "it is a socket, not a file"),
        ("dangling link", "No such file or directory"),
        ("link to itself", "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_is_an_unreadable_image_that_nobody_waits_for(tmp_path, monkeypatch, kind, reason):
    monkeypatch.chdir(tmp_path)
    path = irregular(tmp_path, kind)
    assert images_in(tmp_path).images == images_below(tmp_path).images == [path]
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImageError, match=rf"x\.jpg cannot be decoded: {reason}"):
            read(path)


def test_a_pipe_without_a_suffix_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x")
    assert images_in(tmp_path).others == [tmp_path / "x"]


def test_a_pipe_that_takes_the_name_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    draw_image(tmp_path / "x.png")
    status = (tmp_path / "x.png").stat()
    (tmp_path / "x.png").unlink()
    os.mkfifo(tmp_path / "x.png")
    monkeypatch.setattr(os, "stat", lambda *arguments, **options: status)
    with pytest.raises(UnreadableImageError, match="it is a pipe"):
        read_image(tmp_path / "x.png")


def test_a_folder_that_cannot_be_listed_is_an_error_at_the_top_and_listed_below(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot list .*nowhere: No such file"):
        images_below(tmp_path / "nowhere")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert images_below(tmp_path).others == [tmp_path / "closed"]


def test_a_folder_with_several_links_to_it_is_listed_once(tmp_path):
    for folder in ("photos/rome", "elsewhere", "photos/paris"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.jpg").touch()
    photos = tmp_path / "photos"
    for link, target in (
        ("again", "rome"),
        ("linked", "../elsewhere"),
        ("more", "../elsewhere"),
        ("rome/loop", ".."),
        ("paris/same", "../rome"),
    ):
        (photos / link).symlink_to(target)
    images = [str(path.relative_to(photos)) for path in images_below(photos).images]
    assert images == ["again/1.jpg", "linked/1.jpg", "paris/1.jpg"]
