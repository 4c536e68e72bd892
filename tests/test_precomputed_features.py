import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import draw_image, run_on_small_disk

from models.attention_classifier import RegionFeatures
from utils.errors import UserError
from utils.training.precomputed_features import precompute


def features_from(first):
    """Yield the features of images from `first` to 2, of one region and three channels: n for image n."""
    for number in range(first, 3):
        values = torch.full((1, 1, 3), float(number))
        yield RegionFeatures(values, values, torch.full((1, 3), float(number)))


def paths(tmp_path):
    return [tmp_path / "c" / f"{number}.jpg" for number in range(3)]


def test_features_are_kept_with_their_record(tmp_path):
    store = precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {"L": 5}, channels=3)
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy")[:, :, 0], [[0] * 3, [1] * 3, [2] * 3])
    record = json.loads((tmp_path / "f.npy.json").read_text())
    assert (record["done"], record["corrupt"], record["settings"]["L"]) == (3, [], 5)
    assert store.unreadable == []
    starts = []

    def counted(first):
        starts.append(first)
        return features_from(first)

    again = precompute(tmp_path / "f.npy", paths(tmp_path), counted, {"L": 5}, channels=3)
    assert starts == [3]  # after the last image: none is computed again
    np.testing.assert_array_equal(again.rows, store.rows)


def test_features_of_images_that_were_replaced_are_refused(tmp_path):
    images = paths(tmp_path)
    images[0].parent.mkdir()
    for number, image in enumerate(images):
        draw_image(image, number)
    precompute(tmp_path / "f.npy", images, features_from, {}, channels=3)
    copied = tmp_path / "copy" / "c"
    shutil.copytree(tmp_path / "c", copied, copy_function=shutil.copyfile)  # with new times
    precompute(tmp_path / "f.npy", sorted(copied.iterdir()), features_from, {}, channels=3)
    draw_image(images[1], 7)
    with pytest.raises(UserError, match=r"f\.npy was made with other settings \(images\): remove it or name"):
        precompute(tmp_path / "f.npy", images, features_from, {}, channels=3)


@pytest.mark.parametrize("name", ["f.npy", "f.npy.part", "f.npy.json"])
@pytest.mark.parametrize("content", [b"", b"mine", b'{"mine": 1}', b"[1]"])
def test_a_file_of_the_user_is_refused_and_kept(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} .*name another file"):
        precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {}, channels=3)
    assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["f.npy", "f.npy.part", "f.npy.json"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
        precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {}, channels=3)


def test_a_run_killed_before_the_first_record_is_started_anew(tmp_path):
    def killed(first):
        yield next(features_from(first))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute(tmp_path / "f.npy", paths(tmp_path), killed, {}, channels=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npy.json", "f.npy.part"]
    precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {}, channels=3)
    assert np.load(tmp_path / "f.npy")[2, 0, 0] == 2


SMALL = """
import sys, torch
from pathlib import Path
from models.attention_classifier import RegionFeatures
from utils.program.run_command import run_command
from utils.training.precomputed_features import precompute

def features(first):
    for _ in range(first, 100):
        yield RegionFeatures(torch.ones(1, 5, 2048), torch.ones(1, 5, 2048), torch.ones(1, 2048))

path = Path(sys.argv[1])
names = [path / str(number) for number in range(100)]
sys.exit(run_command(lambda: precompute(path / "f.npy", names, features, {}, channels=2048)))
"""


def test_a_full_disk_is_one_line(tmp_path):
    done = run_on_small_disk(tmp_path, "1m", [sys.executable, "-c", SMALL, tmp_path], then="ls")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: cannot write {tmp_path / 'f.npy.part'}: the disk is full"
    assert done.stdout == "f.npy.json\n"


def changed(**values):
    """Return a function that changes values of the record, and deletes the keys with value `del`."""

    def change(path):
        record = path.with_name("f.npy.json")
        state = json.loads(record.read_text()) | values
        record.write_text(json.dumps({key: value for key, value in state.items() if value != "del"}))

    return change


def replaced(array):
    return lambda path: np.save(path, array)


def content(name, data):
    return lambda path: path.with_name(name).write_bytes(data)


CHANGES = {
    "features truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "features empty": content("f.npy", b""),
    "features HTML": content("f.npy", b"<html>404</html>"),
    "features of fewer images": replaced(np.ones((2, 3, 3), np.float16)),
    "features of two dimensions": replaced(np.ones((3, 9), np.float16)),
    "features of an even number of rows": replaced(np.ones((3, 2, 3), np.float16)),
    "features of other channels": replaced(np.ones((3, 3, 4), np.float16)),
    "features of float32": replaced(np.ones((3, 3, 3), np.float32)),
    "features of the other byte order": replaced(np.ones((3, 3, 3), np.dtype(np.float16).newbyteorder())),
    "features in Fortran order": replaced(np.asfortranarray(np.ones((3, 3, 3), np.float16))),
    "features as objects": replaced(np.array([{}], object)),
    "record truncated": content("f.npy.json", b'{"settings": {'),
    "record empty": content("f.npy.json", b""),
    "record HTML": content("f.npy.json", b"<html>404</html>"),
    "record nested": content("f.npy.json", b"[" * 100_000),
    "record with a NUL": content("f.npy.json", b"\0"),
    "record without done": changed(done="del"),
    "record without corrupt": changed(corrupt="del"),
    "settings as list": changed(settings=[]),
    "done as text": changed(done="3"),
    "done negative": changed(done=-1),
    "done too large": changed(done=4),
    "done too small": changed(done=2),
    "corrupt as number": changed(corrupt=0),
    "corrupt as text": changed(corrupt=["0"]),
    "corrupt too large": changed(corrupt=[3]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_unreadable_features_are_named_with_what_to_do(tmp_path, change):
    precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {"L": 5}, channels=3)
    change(tmp_path / "f.npy")
    with pytest.raises(
        UserError, match=r"^\S*f\.npy\S* [^\n]*(remove it|move it away)[^\n]*name another"
    ) as caught:
        precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {"L": 5}, channels=3)
    assert "\n" not in str(caught.value)


def test_features_of_zeros_are_never_trained_on(tmp_path):
    precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {}, channels=3)
    store = precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {}, channels=3)
    assert store.read(np.array([2, 1])).maxima[:, 0, 0].tolist() == [2, 1]
    with pytest.raises(UserError, match=r"f\.npy is unreadable: row 0 is all zeros"):
        store.read(np.array([1, 0]))


def test_features_outside_the_range_of_float16_are_an_error(tmp_path):
    def features(first):
        yield RegionFeatures(torch.full((1, 1, 3), 1e5), torch.ones(1, 1, 3), torch.ones(1, 3))

    with pytest.raises(UserError, match=r"0\.jpg are not finite in float16"):
        precompute(tmp_path / "f.npy", paths(tmp_path), features, {}, channels=3)


def test_an_unreadable_image_before_the_first_record_is_counted_once(tmp_path):
    def features(first, killed=True):
        yield from [None, *features_from(1)][first : 2 if killed else 3]
        if killed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute(tmp_path / "f.npy", paths(tmp_path), features, {}, channels=3)
    store = precompute(
        tmp_path / "f.npy", paths(tmp_path), lambda first: features(first, killed=False), {}, channels=3
    )
    assert store.unreadable == [0]
