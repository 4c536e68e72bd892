import shutil

import numpy as np
import pytest
import torch
from conftest import draw_image
from helpers import network_of
from PIL import Image
from torch import nn

from utils.descriptors.describe import describe
from utils.descriptors.store import open_store
from utils.errors import UserError
from utils.images.batches import Loading
from utils.images.loading import InputImage
from utils.processes import Processes

CPU = torch.device("cpu")


def saturated_network():
    """Return a network of huge weights, whose sigmoids give 1 for every image."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 32, 32), nn.Sigmoid())
    for values in layers.parameters():
        nn.init.constant_(values, 1e30)
    return network_of("mac", layers)


def described(paths, store=None):
    images = [InputImage(path) for path in paths]
    loading = Loading.on(CPU, 64, 1, 0)
    return describe(saturated_network(), images, loading, Processes(0, 1, CPU), store=store)


@pytest.mark.parametrize("in_store", [False, True])
def test_one_descriptor_for_different_images_is_an_error(tmp_path, in_store):
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        draw_image(path, seed)
    for _ in range(2):  # the second run finds the descriptors in the store
        store = open_store(tmp_path / "store", {}) if in_store else None
        with pytest.raises(UserError, match=r"all 3 images the same descriptor.*check its weights"):
            described(paths, store)


def test_copies_of_an_image_have_one_descriptor(tmp_path):
    draw_image(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "c.jpg", quality=60)
        image.resize((128, 96)).save(tmp_path / "d.bmp")
    rows = described(sorted(tmp_path.iterdir())).rows
    np.testing.assert_allclose(rows[:], np.full((4, 8), 8**-0.5), atol=1e-6)  # 8 equal values of length 1


def test_blank_images_have_one_descriptor(tmp_path):
    for level in (0, 128, 255):
        Image.new("RGB", (64, 48), (level,) * 3).save(tmp_path / f"{level}.png")
    assert len(described(sorted(tmp_path.iterdir())).rows) == 3


def test_two_images_may_have_one_descriptor(tmp_path):
    for seed in range(2):
        draw_image(tmp_path / f"{seed}.png", seed)
    assert len(described(sorted(tmp_path.iterdir())).rows) == 2
