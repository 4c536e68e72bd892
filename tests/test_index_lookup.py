import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import INDEX_SETTINGS

from utils.descriptors.store import open_store
from utils.errors import UserError
from utils.image_index import image_index
from utils.image_index.catalogue import write_index
from utils.image_index.image_index import read_index
from utils.image_index.index_lookup import MappedKeys, Names, read_lookup

KEYS = ["b.jpg\x001", "a\udcff.jpg\x002", "é/c.jpg\x003", "b\x004", "", "a.jpg\x005"]


def unit_rows(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_index(folder, keys, rows):
    store = open_store(folder / "descriptors", INDEX_SETTINGS, verify=False)
    store.add(keys, rows)
    store.flush()
    store.read()
    write_index(folder, folder / "images", keys, INDEX_SETTINGS, store)


@pytest.fixture
def index(tmp_path):
    keys = [f"{name}.jpg\x00{name}" for name in "dbca"]
    make_index(tmp_path / "index", keys, unit_rows(4))
    read_index(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def no_slow_reading(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("the catalogue was read")

    monkeypatch.setattr(image_index, "read_catalogue", fail)


def mapped(keys):
    encoded = [key.encode("utf-8", "surrogatepass") for key in keys]
    order = sorted(range(len(keys)), key=encoded.__getitem__)
    text = np.frombuffer(b"".join(encoded), np.uint8)
    return MappedKeys(text, np.cumsum([len(key) for key in encoded]), np.array(order, np.int64))


def test_mapped_keys_are_those_of_a_list():
    keys = mapped(KEYS)
    assert (len(keys), list(keys), keys[1:4], keys[-1]) == (6, KEYS, KEYS[1:4], KEYS[-1])
    assert [keys.index(key) for key in KEYS] == list(range(6))
    assert keys == KEYS
    assert keys != KEYS[:5]
    assert "b\x004" in keys
    for missing in ("b", "c", "b\x0044", "\x00", "z"):
        assert missing not in keys
        with pytest.raises(ValueError, match="is not among the keys"):
            keys.index(missing)
    with pytest.raises(IndexError):
        keys[6]


def test_no_keys():
    assert list(mapped([])) == []
    assert "a" not in mapped([])


def test_names_are_the_first_parts_of_keys():
    assert Names(KEYS) == ["b.jpg", "a\udcff.jpg", "é/c.jpg", "b", "", "a.jpg"]
    assert Names(KEYS)[1:3] == ["a\udcff.jpg", "é/c.jpg"]


def test_a_second_reading_gives_the_same_index_without_the_catalogue(index, no_slow_reading):
    second = read_index(index)
    assert second.names == ["d.jpg", "b.jpg", "c.jpg", "a.jpg"]
    assert second.keys == [f"{name}.jpg\x00{name}" for name in "dbca"]
    assert second.folder == (index / "images").resolve()
    assert second.settings == INDEX_SETTINGS
    np.testing.assert_array_equal(second.rows[:], unit_rows(4))


def test_an_empty_index_can_be_read_twice(tmp_path):
    make_index(tmp_path, ["a\x00"], unit_rows(1))
    store = open_store(tmp_path / "descriptors", INDEX_SETTINGS)
    write_index(tmp_path, tmp_path, [], INDEX_SETTINGS, store)
    for _ in range(2):
        assert list(read_index(tmp_path).names) == []


def test_a_changed_index_is_read_anew(index):
    make_index(index, ["new.jpg\x00", "d.jpg\x00d"], unit_rows(2, seed=1))
    assert read_lookup(index) is None
    for _ in range(2):
        assert read_index(index).names == ["new.jpg", "d.jpg"]
        np.testing.assert_array_equal(read_index(index).rows[:], unit_rows(2, seed=1))


def test_a_shard_changed_in_place_with_its_time_set_back_is_noticed(index):
    (shard,) = index.rglob("shard-*.npy")
    before = shard.stat()
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    with shard.open("r+b") as file:
        file.write(data)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match="its checksum does not match"):
        read_index(index)


@pytest.mark.parametrize("pattern", ["catalogue.json", "descriptors/store.json", "descriptors/shard-*.json"])
def test_a_deleted_file_is_noticed(index, pattern):
    (path,) = index.glob(pattern)
    path.unlink()
    assert read_lookup(index) is None


@pytest.mark.parametrize("name", ["lookup.json", "positions.npy", "ends.npy", "order.npy", "text.npy"])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:-1] + b"\0", lambda data: b""])
def test_changed_lookup_files_are_not_used(index, name, change):
    path = index / "lookup" / name
    path.write_bytes(change(path.read_bytes()))
    assert read_lookup(index) is None
    assert read_index(index).names == ["d.jpg", "b.jpg", "c.jpg", "a.jpg"]
    assert read_lookup(index) is not None


def test_a_copied_index_is_verified_once(index, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(index, copy)
    assert read_lookup(copy) is None
    assert read_index(copy).names == read_index(index).names
    assert read_lookup(copy) is not None


def test_a_file_replaced_during_the_reading_is_noticed(index, monkeypatch):
    shutil.rmtree(index / "lookup")
    opened = image_index.open_store

    def replace_then_open(*arguments, **options):
        store = opened(*arguments, **options)
        catalogue = index / "catalogue.json"
        catalogue.with_name("new").write_bytes(catalogue.read_bytes())
        catalogue.with_name("new").replace(catalogue)
        return store

    monkeypatch.setattr(image_index, "open_store", replace_then_open)
    assert read_index(index).names[0] == "d.jpg"
    assert read_lookup(index) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to any folder")
def test_an_index_that_cannot_be_written_is_read(index):
    shutil.rmtree(index / "lookup")
    Path(index).chmod(0o500)
    try:
        assert read_index(index).names[0] == "d.jpg"
    finally:
        Path(index).chmod(0o700)


def test_an_index_is_read_if_its_lookup_files_cannot_be_written(index):
    shutil.rmtree(index / "lookup")
    (index / "lookup").touch()  # a file of the user
    assert read_index(index).names[0] == "d.jpg"
    assert (index / "lookup").is_file()
