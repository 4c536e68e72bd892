import json
import os
import sys

import numpy as np
import pyarrow
import pytest
from conftest import draw_image
from helpers import FAST_INDEX, FAST_OPTIONS
from pyarrow import parquet

import Search_Images
from utils.descriptors import export as export_module
from utils.descriptors.keys import image_key
from utils.descriptors.rows import StoredRows
from utils.descriptors.store import open_store
from utils.images.loading import InputImage

SUFFIXES = pytest.mark.parametrize("suffix", [".parquet", ".npy"])


@pytest.fixture
def images(tmp_path, command):
    """The files of five images in an index."""
    paths = [tmp_path / "images" / name for name in ("a.png", "b.jpg", "more/c.png", "more/d.png", "z.png")]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(path, seed)
    assert command("index", tmp_path / "images", *FAST_INDEX)[0] == 0
    return paths


def exported(path):
    """Return the descriptors and the paths in a file."""
    if path.suffix == ".npy":
        return np.load(path), json.loads(path.with_suffix(".json").read_text())["paths"]
    table = parquet.read_table(path)
    assert table["id"].to_pylist() == list(range(len(table)))
    return np.array(table["descriptor"].to_pylist(), np.float32), table["path"].to_pylist()


@SUFFIXES
def test_an_index_is_exported_with_the_paths_of_its_images(command, images, tmp_path, suffix):
    status, out, err = command("export", f"photos{suffix}")
    assert (status, err) == (0, "")
    assert out == f"5 descriptors of 1280 dimensions, float32, are in photos{suffix}\n"
    rows, paths = exported(tmp_path / f"photos{suffix}")
    assert paths == [str(path) for path in images]
    np.testing.assert_allclose(rows, Search_Images.describe(images, **FAST_OPTIONS), atol=1e-6)
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def store(tmp_path):
    """A store of an evaluation with two poolings of two dimensions each, and its rows."""
    rows = np.arange(20).reshape(5, 4)
    store = open_store(tmp_path / "store", {"pooling": "mac,rmac"}, precision="float16")
    names = ["q.jpg", "b.jpg", "b.jpg", "é.jpg", "a.jpg"]
    keys = [f"{name}\0001\0{number}\0digest\0" for number, name in enumerate(names)]
    keys[0] = image_key(InputImage(tmp_path / "q.jpg", (0.5, 1.0, 20.0, 30.25)), "q.jpg")
    store.add(keys[:3], rows[:3])
    store.flush()
    store.add(keys[3:], rows[3:])
    store.flush()
    return rows


@SUFFIXES
def test_a_store_is_exported_in_its_order_and_type_with_boxes(command, store, tmp_path, suffix):
    assert command("export", f"out{suffix}", "--descriptors", "store", "--pooling", "rmac")[0] == 0
    rows, paths = exported(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(rows, store[:, 2:])
    assert paths == ["q.jpg", "b.jpg", "b.jpg", "é.jpg", "a.jpg"]
    if suffix == ".npy":
        assert rows.dtype == np.float16
        boxes = json.loads((tmp_path / "out.json").read_text())["boxes"]
    else:
        table = parquet.read_table(tmp_path / "out.parquet")
        assert table.schema.field("descriptor").type == pyarrow.list_(pyarrow.float16(), 2)
        boxes = table["box"].to_pylist()
    assert boxes == [[0.5, 1.0, 20.0, 30.25], None, None, None, None]


@SUFFIXES
def test_rows_are_read_and_written_in_blocks(command, store, tmp_path, monkeypatch, suffix):
    read = []
    read_rows = StoredRows.__getitem__
    monkeypatch.setattr(
        StoredRows, "__getitem__", lambda rows, block: read.append(block) or read_rows(rows, block)
    )
    monkeypatch.setattr(export_module, "BLOCK", 2)
    assert command("export", f"out{suffix}", "--descriptors", "store", "--pooling", "mac")[0] == 0
    assert read == [slice(0, 2), slice(2, 4), slice(4, 5)]
    np.testing.assert_array_equal(exported(tmp_path / f"out{suffix}")[0], store[:, :2])
    if suffix == ".parquet":
        assert parquet.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 3


@SUFFIXES
def test_an_exported_file_is_replaced(command, images, store, tmp_path, suffix):
    command("export", f"out{suffix}", "--descriptors", "store", "--pooling", "mac")
    assert command("export", f"out{suffix}")[0] == 0
    rows, paths = exported(tmp_path / f"out{suffix}")
    assert rows.shape == (5, 1280)
    assert paths[0] == str(images[0])


def test_a_users_file_is_never_replaced(command, images, tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros(3))
    (tmp_path / "other.npy").write_text("text")
    (tmp_path / "taken.json").write_text("{}")
    parquet.write_table(pyarrow.table({"id": [1]}), tmp_path / "mine.parquet")
    (tmp_path / "text.parquet").write_text("text")
    (tmp_path / "broken.parquet").write_text("PAR1 text")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "link.parquet").symlink_to("mine.parquet")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file()}
    for name in ["mine.npy", "other.npy", "taken.npy", "folder.npy"] + [
        f"{stem}.parquet" for stem in ("mine", "text", "broken", "link")
    ]:
        status, out, err = command("export", name)
        assert (status, out) == (2, "")
        assert err.startswith("error: cannot replace ")
        assert "name another file" in err
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file()} == before


@SUFFIXES
def test_an_export_that_fails_leaves_the_earlier_files(command, images, store, tmp_path, monkeypatch, suffix):
    command("export", f"out{suffix}")
    before = {path: path.read_bytes() for path in tmp_path.glob("out.*")}

    def fail(rows):
        yield slice(0, 1), np.zeros((1, 2), np.float16)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "_blocks", fail)
    status, _, err = command("export", f"out{suffix}", "--descriptors", "store", "--pooling", "mac")
    assert status == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.glob("out.*")} == before
    assert not list(tmp_path.glob(".*"))


def test_paths_that_are_not_utf8_are_escaped_in_parquet_and_kept_in_json(command, images, tmp_path, caplog):
    name = os.fsdecode(b"caf\xe9.png")
    draw_image(tmp_path / "images" / name, 9)
    command("index", tmp_path / "images", *FAST_INDEX)
    assert command("export", "out.parquet")[0] == 0
    assert "1 paths are not UTF-8" in caplog.text
    assert exported(tmp_path / "out.parquet")[1][2] == str(tmp_path / "images" / "caf\\xe9.png")
    assert command("export", "out.npy")[0] == 0
    assert exported(tmp_path / "out.npy")[1][2] == str(tmp_path / "images" / name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out.csv"], "its name must end in .parquet or .npy"),
        (["out.npy"], "no index at search_index"),
        (["out.npy", "--descriptors", "nothing"], "no descriptors at nothing"),
        (["out.npy", "--descriptors", "store"], "has descriptors of mac and rmac: choose one by --pooling"),
        (["out.npy", "--descriptors", "store", "--pooling", "gem"], "no descriptors of pooling gem"),
        (["out.npy", "--pooling", "mac"], "has no effect without descriptors"),
        (["out.npy", "--index", "other", "--descriptors", "store"], "are both given"),
        (["missing/out.npy", "--descriptors", "empty"], "there are no descriptors to export"),
    ],
)
def test_what_cannot_be_exported_is_one_line(command, store, tmp_path, words, message):
    open_store(tmp_path / "empty", {"pooling": "mac"})
    status, out, err = command("export", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "nothing").exists()


def test_without_pyarrow_only_parquet_is_refused(command, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = command("export", "out.parquet")
    assert (status, err) == (
        2,
        "error: Parquet needs pyarrow: pip install pyarrow, or export to a .npy file\n",
    )
    assert command("export", "out.npy")[0] == 0
