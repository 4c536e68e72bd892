"""Query images in a folder of their own, and queries without their box."""

import json
import shutil

import numpy as np
import pytest
from conftest import draw_image, write_query

from utils.data.open_dataset import open_dataset, read_folder
from utils.errors import UserError
from utils.prepare.verify import verify

BOX = (0, 0, 40, 40)


def descriptors(folder):
    """Return the descriptors of queries and images by name."""
    with np.load(folder / "descriptors.npz") as arrays:
        queries = dict(zip(arrays["query_names"].tolist(), arrays["query_descriptors"], strict=True))
        return queries, dict(zip(arrays["names"].tolist(), arrays["descriptors"], strict=True))


def test_query_images_in_a_folder_of_their_own_are_not_in_the_database(measure, dataset, tmp_path, capsys):
    assert measure("--output", tmp_path / "together")[0] == 0
    (dataset / "queries").mkdir()
    (dataset / "jpg" / "a.png").rename(dataset / "queries" / "a.png")
    data = read_folder(dataset)
    assert (list(data.images), list(data.query_images)) == (["b", "c", "d"], ["a"])
    status, _, err = measure("--output", tmp_path / "separate")
    assert (status, "note" in err) == (0, False), err
    queries, images = descriptors(tmp_path / "separate")
    assert list(images) == ["b", "c", "d"]
    np.testing.assert_allclose(queries["q_1"], descriptors(tmp_path / "together")[0]["q_1"], atol=1e-6)
    capsys.readouterr()
    verify(dataset)
    assert capsys.readouterr().out.splitlines()[0] == f"{dataset}: 3 images, 1 queries"


def test_an_image_in_queries_has_priority_over_one_of_its_name(dataset):
    (dataset / "queries").mkdir()
    draw_image(dataset / "queries" / "a.jpg", seed=9)
    data = read_folder(dataset)
    assert data.query_inputs()[0].path == dataset / "queries" / "a.jpg"
    assert data.images["a"] == dataset / "jpg" / "a.png"


def test_a_query_image_in_neither_folder_is_an_error(dataset):
    (dataset / "queries").mkdir()
    draw_image(dataset / "queries" / "x.png")
    (dataset / "jpg" / "a.png").unlink()
    with pytest.raises(UserError, match="query q_1: its image a is not in the data set"):
        read_folder(dataset)


def test_query_images_of_a_revisited_set_in_a_folder_of_their_own(tmp_path):
    for name, seed in (("jpg/c.png", 0), ("jpg/d.png", 1), ("queries/e.png", 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw_image(tmp_path / name, seed)
    gnd = [{"bbx": [0, 0, 40, 40], "easy": [0], "hard": [1], "junk": []}]
    labels = {"imlist": ["c", "d"], "qimlist": ["e"], "gnd": gnd}
    (tmp_path / "gnd_roxford5k.json").write_text(json.dumps(labels))
    data = read_folder(tmp_path)
    assert list(data.images) == ["c", "d"]
    assert data.query_inputs()[0].path == tmp_path / "queries" / "e.png"
    shutil.move(tmp_path / "jpg" / "d.png", tmp_path / "queries" / "d.png")  # an image of the database
    with pytest.raises(UserError, match=r"lacks 1 of its 3 images \(first: d\)"):
        read_folder(tmp_path)


def test_without_boxes_a_query_has_the_descriptor_of_its_complete_image(measure, dataset, tmp_path):
    results = {}
    for name, options in (("boxes", []), ("complete", ["--no-boxes"])):
        assert measure("--output", tmp_path / name, *options)[0] == 0
        results[name] = descriptors(tmp_path / name)
    np.testing.assert_allclose(results["complete"][0]["q_1"], results["boxes"][1]["a"], atol=1e-6)
    assert not np.allclose(results["boxes"][0]["q_1"], results["boxes"][1]["a"], atol=1e-3)
    assert json.loads((tmp_path / "complete" / "results.json").read_text())["settings"]["boxes"] is False


def test_without_boxes_all_protocols_are_of_complete_images(tmp_path):
    (tmp_path / "jpg").mkdir()
    for seed, name in enumerate("cde"):
        draw_image(tmp_path / "jpg" / f"{name}.png", seed)
    gnd = [{"bbx": [0, 0, 40, 40], "easy": [0], "hard": [1], "junk": []}]
    labels = {"imlist": ["c", "d"], "qimlist": ["e"], "gnd": gnd}
    (tmp_path / "gnd_roxford5k.json").write_text(json.dumps(labels))
    boxed, complete = (open_dataset(str(tmp_path), tmp_path, boxes=boxes) for boxes in (True, False))
    for data, box in ((boxed, BOX), (complete, None)):
        queries = [data.queries, *data.protocols.values()]
        assert [query.box for of_protocol in queries for query in of_protocol] == [box] * 4
    assert complete.query_inputs()[0].box is None


def test_a_query_file_without_a_box_stands_for_the_complete_image(measure, dataset, tmp_path, capsys):
    draw_image(dataset / "jpg" / "two words.png", seed=7)
    write_query(dataset, "q_1", "a", good="b", ok="c", junk="d")
    write_query(dataset, "q_2", "oxc1_two words", good="b")
    write_query(dataset, "q_3", "two words 0 0 40 40", good="b")
    data = read_folder(dataset)
    assert [(query.image, query.box) for query in data.queries] == [
        ("a", None),
        ("two words", None),
        ("two words", BOX),
    ]
    assert measure("--output", tmp_path / "out", "--figures", tmp_path / "figures")[0] == 0
    queries, images = descriptors(tmp_path / "out")
    np.testing.assert_allclose(queries["q_1"], images["a"], atol=1e-6)
    capsys.readouterr()
    verify(dataset)
    assert capsys.readouterr().out.splitlines()[-1].endswith("is complete")
