import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_image

from utils.data.imagenet import read_wnids
from utils.text import OneLineFormatter, digest_of_names, escape_misleading, first_names

ROOT = Path(__file__).parents[1]
STRAY = os.fsdecode(b"caf\xe9")
"""A name with a byte that is not UTF-8."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain & é東.jpg", "plain & é東.jpg"),
        (STRAY, r"caf\udce9"),
        ("a\nb\tc\x7f\x1b[2J", r"a\nb\tc\x7f\x1b[2J"),
        ("a\u2028b\u202egpj.exe", r"a\u2028b\u202egpj.exe"),
    ],
)
def test_misleading_characters_are_escaped(name, expected):
    assert escape_misleading(name) == expected


def test_some_names_are_the_first_three():
    assert first_names({"c", "a", "b"}) == "a, b, c"
    assert first_names(["d", "c", "a", "b"]) == "a, b, c, ..."


def test_the_digest_is_of_the_names_bytes():
    assert digest_of_names(["a/b", STRAY]) == hashlib.sha256(b"a/b\0caf\xe9").hexdigest()


def test_a_message_is_one_line_and_a_traceback_keeps_its_lines():
    try:
        raise ValueError("why")
    except ValueError:
        trace = sys.exc_info()
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "note: %s", ("a\nerror: b",), None)
    assert OneLineFormatter("%(message)s").format(record) == r"note: a\nerror: b"
    record.exc_info = trace
    assert OneLineFormatter("%(message)s").format(record).splitlines()[-1] == "ValueError: why"


@pytest.fixture
def imagenet(tmp_path):
    """A data set of two classes of three images with unusual names, and a validation image."""
    folder = tmp_path / "data" / "ImageNet"
    for seed, wnid in enumerate(read_wnids()[:2]):
        (folder / "train" / "data" / wnid).mkdir(parents=True)
        for number, name in enumerate((STRAY, "a\nerror: b", "é東")):
            plain = folder / "train" / "data" / wnid / "plain.png"
            draw_image(plain, 10 * seed + number)
            plain.rename(plain.with_name(f"{name}.JPEG"))
    (folder / "val" / "data").mkdir(parents=True)
    draw_image(folder / "val" / "data" / "v.JPEG", 5)
    (folder / "val" / "val.txt").write_text("v.JPEG 0\n")
    return folder


def train(imagenet, output, *options):
    words = [
        *("--datasets-dir", imagenet.parent, "--output", output, "--backbone", "efficientnet_lite0"),
        *("--crop", "64", "--resize", "68", "72", "--device", "cpu", "--workers", "0"),
        *("--iterations", "2", "--batch-size", "2", "--accumulate", "1", *options),
    ]
    return subprocess.run(
        [sys.executable, ROOT / "Training_ImageNet.py", *map(str, words)], capture_output=True, text=True
    )


@pytest.mark.slow
def test_strange_names_are_trained_on_and_precomputed(imagenet, tmp_path):
    done = train(imagenet, tmp_path / "out", "--precompute", tmp_path / "f.npy")
    assert done.returncode == 0, done.stderr
    assert len(np.load(tmp_path / "f.npy")) == 7


@pytest.mark.slow
def test_names_of_unreadable_images_are_escaped_in_notes_and_errors(imagenet, tmp_path):
    for folder in (imagenet / "train" / "data").iterdir():
        for path in folder.iterdir():
            path.write_bytes(b"no image")
    done = train(imagenet, tmp_path / "out", "--iterations", "1", "--batch-size", "6")
    lines = [line for line in done.stderr.splitlines() if line.startswith(("note:", "error:"))]
    assert done.returncode == 2
    assert len([line for line in lines if line.startswith("error:")]) == 1
    assert any(r"a\nerror: b.JPEG" in line for line in lines)
    assert any(r"caf\udce9.JPEG" in line for line in lines)
