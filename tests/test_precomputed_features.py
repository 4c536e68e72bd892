import json
import os
import sys

import numpy as np
import pytest
import torch
from conftest import run_on_small_disk

from models.attention_classifier import RegionFeatures
from utils.errors import UserError
from utils.training.precomputed_features import precompute


def features_from(first):
    """Features of one region and three channels: of image n all are n."""
    for number in range(first, 3):
        values = torch.full((1, 1, 3), float(number))
        yield RegionFeatures(values, values, torch.full((1, 3), float(number)))


def paths(tmp_path):
    return [tmp_path / "c" / f"{number}.jpg" for number in range(3)]


def test_features_are_kept_with_their_record(tmp_path):
    store = precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {"L": 5})
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy")[:, :, 0], [[0] * 3, [1] * 3, [2] * 3])
    record = json.loads((tmp_path / "f.npy.json").read_text())
    assert (record["done"], record["corrupt"], record["settings"]["L"]) == (3, [], 5)
    assert store.corrupt == []
    precompute(tmp_path / "f.npy", paths(tmp_path), lambda first: features_from(first), {"L": 5})


@pytest.mark.parametrize("name", ["f.npy", "f.npy.part", "f.npy.json"])
@pytest.mark.parametrize("content", [b"", b"mine", b'{"mine": 1}', b"[1]"])
def test_a_users_own_file_is_refused_and_kept(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} .*name another file"):
        precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {})
    assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["f.npy", "f.npy.part", "f.npy.json"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
        precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {})


def test_a_run_killed_before_the_first_record_is_started_anew(tmp_path):
    def killed(first):
        yield next(features_from(first))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute(tmp_path / "f.npy", paths(tmp_path), killed, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npy.json", "f.npy.part"]
    precompute(tmp_path / "f.npy", paths(tmp_path), features_from, {})
    assert np.load(tmp_path / "f.npy")[2, 0, 0] == 2


SMALL = """
import sys, torch
from pathlib import Path
from models.attention_classifier import RegionFeatures
from utils.errors import run_command
from utils.training.precomputed_features import precompute

def features(first):
    for _ in range(first, 100):
        yield RegionFeatures(torch.ones(1, 5, 2048), torch.ones(1, 5, 2048), torch.ones(1, 2048))

path = Path(sys.argv[1])
sys.exit(run_command(lambda: precompute(path / "f.npy", [path / str(n) for n in range(100)], features, {})))
"""


def test_a_full_disk_is_one_line(tmp_path):
    done = run_on_small_disk(tmp_path, "1m", [sys.executable, "-c", SMALL, tmp_path], then="ls")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: cannot write {tmp_path / 'f.npy.part'}: the disk is full"
    assert done.stdout == "f.npy.json\n"
