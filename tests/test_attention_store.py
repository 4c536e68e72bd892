"""Attention maps that an index keeps, compared with the maps that the network computes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image
from helpers import network_of

import Search_Images
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.retrieval_network import RetrievalNetwork
from utils.descriptors.attention_maps import decode_map, descriptors_and_maps, map_width
from utils.figures.heat_map import image_attention
from utils.file_names import INDEX_ATTENTION
from utils.image_index.image_index import read_index
from utils.images.loading import InputImage
from utils.photo_search.options import ServeOptions
from utils.serve.searcher import Query

SIZES = [(64, 48), (48, 64), (64, 64), (64, 20), (64, 48)]
OPTIONS = ["--S", "128", "--no-whiten", "--device", "cpu", "--workers", "0"]
FOLDER = Path("search_index", INDEX_ATTENTION)


@pytest.fixture
def weights(tmp_path):
    """Options that name a weights folder with a random attention head whose weights differ."""
    folder = tmp_path / "weights" / "efficientnet_lite0"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    head = ContextAwareRegionalAttention(1280)
    torch.nn.init.normal_(head.conv_att_2.weight)
    torch.save(head.state_dict(), folder / "ContextAwareRegionalAttention_weights.pth")
    return ["--weights-dir", tmp_path / "weights"]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        draw_image(folder / f"{number}.png", number, size)
    return folder


@pytest.fixture
def indexed(command, images, weights):
    assert command("index", images, *OPTIONS, *weights)[0] == 0
    return images


def searcher(weights):
    return Search_Images.open_searcher(ServeOptions(weights_dir=weights[1], device="cpu"))


def query_of(search, row, box=None):
    return Query(f"images/{row}", InputImage(search.index.path(row), box), row)


def computed(search, row, box=None):
    return image_attention(search._network, InputImage(search.index.path(row), box), 128)


def assert_same(actual, heat):
    """Check that a map is nearly the other, and that the heat maps of both have the same colours."""
    np.testing.assert_allclose(actual, heat, rtol=1e-3)
    np.testing.assert_allclose(
        (actual - actual.min()) / np.ptp(actual), (heat - heat.min()) / np.ptp(heat), atol=1e-3
    )


def refuse_passes(monkeypatch):
    def fail(*_):
        raise AssertionError("the network computes")

    monkeypatch.setattr(RetrievalNetwork, "attention_map", fail)


def test_maps_of_the_index_are_those_of_the_network(indexed, weights, monkeypatch):
    search = searcher(weights)
    expected = [computed(search, row) for row in range(5)]
    refuse_passes(monkeypatch)
    for row, heat in enumerate(expected):
        actual = search.attention(query_of(search, row))
        assert actual.dtype == np.float32
        assert_same(actual, heat)
        assert np.ptp(heat) > 0.01 or heat.shape[0] < 4
    assert {heat.shape for heat in expected} == {(3, 4), (4, 3), (4, 4), (2, 4)}


def test_other_maps_are_computed(indexed, weights):
    search = searcher(weights)
    np.testing.assert_array_equal(
        search.attention(query_of(search, 0, (0, 0, 40, 40))), computed(search, 0, (0, 0, 40, 40))
    )
    draw_image(indexed / "1.png", 99, (48, 64))  # has changed after indexing
    np.testing.assert_array_equal(search.attention(query_of(search, 1)), computed(search, 1))
    shutil.rmtree(FOLDER)  # as in an index of an earlier version
    search = searcher(weights)
    np.testing.assert_array_equal(search.attention(query_of(search, 2)), computed(search, 2))


def test_an_earlier_index_keeps_its_descriptors_and_gets_maps_of_new_images(
    command, indexed, weights, monkeypatch
):
    shutil.rmtree(FOLDER)
    draw_image(indexed / "5.png", 5)
    out = command("index", indexed, *OPTIONS, *weights)[1]
    assert out.endswith("1 new or changed, 0 removed\n")
    search = searcher(weights)
    expected = [computed(search, row) for row in range(6)]
    np.testing.assert_array_equal(search.attention(query_of(search, 4)), expected[4])
    refuse_passes(monkeypatch)
    assert_same(search.attention(query_of(search, 5)), expected[5])


def test_maps_of_deleted_images_are_removed_once_they_are_most(command, indexed, weights, monkeypatch):
    def stored():
        return sum(len(np.load(path.with_suffix(".npy"))) for path in FOLDER.glob("shard-*.json"))

    assert stored() == 5
    for name in ("0", "1", "2"):
        (indexed / f"{name}.png").unlink()
    assert command("index", indexed, *OPTIONS, *weights)[0] == 0
    assert stored() == 2
    search = searcher(weights)
    expected = [computed(search, row) for row in range(2)]
    refuse_passes(monkeypatch)
    for row in range(2):
        assert_same(search.attention(query_of(search, row)), expected[row])
    shutil.rmtree(indexed)
    indexed.mkdir()
    assert command("index", indexed, *OPTIONS, *weights)[0] == 0
    assert stored() == 0


def test_an_unreadable_store_is_noted(indexed, weights, caplog):
    path = next(FOLDER.glob("shard-*.npy"))
    path.write_bytes(path.read_bytes()[:-2])
    search = searcher(weights)
    assert "note: heat maps are computed anew: " in caplog.text
    np.testing.assert_array_equal(search.attention(query_of(search, 0)), computed(search, 0))


@pytest.mark.parametrize("words", [["--pooling", "rmac"], ["--scales", "0.5,1"]])
def test_other_descriptors_have_no_maps(command, images, weights, words):
    assert command("index", images, *OPTIONS, *weights, *words)[0] == 0
    assert not FOLDER.exists()
    assert len(read_index(Path("search_index")).names) == 5


@torch.inference_mode()
def test_a_row_has_the_size_and_the_values_of_a_map():
    torch.manual_seed(0)
    head = ContextAwareRegionalAttention(3)
    torch.nn.init.normal_(head.conv_att_2.weight)
    network = network_of("ra", torch.nn.AvgPool2d(32), levels=2, attention=head)
    images = torch.rand(2, 3, 64, 96)
    assert map_width(96, 32) == 4 + 9
    rows = descriptors_and_maps(images, network, 13)
    np.testing.assert_allclose(rows[:, :3], network(images)[:, 0], atol=1e-6)
    heat = network.attention_map(images)
    assert rows[:, 3:5].tolist() == [[2, 3]] * 2
    least, greatest = heat.amin((1, 2)), heat.amax((1, 2))
    np.testing.assert_allclose(rows[:, 5], least, atol=1e-6)
    np.testing.assert_allclose(rows[:, 6], greatest - least, atol=1e-6)
    scaled = (heat - least[:, None, None]) / (greatest - least)[:, None, None]
    np.testing.assert_allclose(rows[:, 7:13], scaled.flatten(1), atol=1e-4)
    assert rows[:, 13:].tolist() == [[0, 0, 0]] * 2
    np.testing.assert_allclose(decode_map(rows[1, 3:].numpy()), heat[1], atol=1e-6)
    too_small = descriptors_and_maps(images, network, 7)
    assert too_small[:, 3:].tolist() == [[0] * 7] * 2
    with pytest.raises(ValueError, match="no pooling with attention"):
        descriptors_and_maps(images, network_of("rmac", torch.nn.AvgPool2d(32)), 13)


def test_a_map_of_equal_values_is_kept():
    assert decode_map(np.float32([1, 2, 0.5, 0, 0, 0])).tolist() == [[0.5, 0.5]]
    assert decode_map(np.float32([2, 1, 0.5, 0.25, 0, 1, 0])).tolist() == [[0.5], [0.75]]


@pytest.mark.parametrize(
    "row",
    [
        [0, 0, 0, 0, 0],
        [2, 2, 1, 1, 0, 1, 1],
        [np.nan, 1, 1, 1, 1],
        [1, 1, np.inf, 1, 1],
        [-1, 1, 0, 0, 1],
        [-1, -1, 0, 0, 1],
    ],
)
def test_a_row_without_a_map_has_none(row):
    assert decode_map(np.float32(row)) is None
