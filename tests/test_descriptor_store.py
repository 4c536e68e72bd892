import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from utils.descriptors import store as descriptor_store
from utils.descriptors.shards import shard_records
from utils.descriptors.store import open_store
from utils.errors import UserError

ROOT = Path(__file__).parents[1]


def vectors(count, seed=0, width=6):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def filled(folder, rows, made_with=None, **options):
    store = open_store(folder, made_with or {"S": 64}, **options)
    store.add([f"key {row}" for row in range(len(rows))], rows)
    store.flush()
    return store


def test_written_rows_are_read_by_key(tmp_path):
    rows = vectors(10)
    filled(tmp_path / "store", rows)
    store = open_store(tmp_path / "store", {"S": 64})
    assert len(store) == 10
    assert "key 3" in store
    assert "key 10" not in store
    np.testing.assert_array_equal(store.rows(["key 7", "key 0", "key 7"])[:], rows[[7, 0, 7]])


def test_rows_are_numpys_files_with_a_record_of_keys_and_their_crc(tmp_path):
    rows = vectors(3)
    filled(tmp_path / "store", rows)
    (shard,) = (tmp_path / "store").glob("shard-*.npy")
    np.testing.assert_array_equal(np.load(shard), rows)
    record = json.loads(shard.with_suffix(".json").read_text())
    assert record == {"keys": ["key 0", "key 1", "key 2"], "crc32": zlib.crc32(rows.tobytes())}


def test_float16_is_half_the_size_and_rounded_once(tmp_path):
    rows = vectors(1000)
    filled(tmp_path / "half", rows, precision="float16")
    filled(tmp_path / "full", rows)
    sizes = [
        next((tmp_path / name).glob("shard-*.npy")).stat().st_size - 128 for name in ("half", "full")
    ]  # numpy's header has 128 bytes
    assert sizes == [1000 * 6 * 2, 1000 * 6 * 4]
    store = open_store(tmp_path / "half", {"S": 64}, precision="float16")
    actual = store.rows([f"key {row}" for row in range(1000)])[:]
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, rows.astype(np.float16))


def test_shards_are_of_bounded_size_and_hold_all(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD_ROWS", 4)
    rows = vectors(11)
    store = open_store(tmp_path / "store", {})
    for start, stop in ((0, 3), (3, 9), (9, 11)):
        store.add([f"key {row}" for row in range(start, stop)], rows[start:stop])
    store.flush()
    assert sorted(len(np.load(path)) for path in (tmp_path / "store").glob("*.npy")) == [3, 4, 4]
    store.read()
    np.testing.assert_array_equal(store.rows([f"key {row}" for row in range(11)])[:], rows)


def test_the_last_row_of_a_key_is_used(tmp_path):
    filled(tmp_path / "store", vectors(3, seed=1))
    filled(tmp_path / "store", vectors(2, seed=2))
    store = open_store(tmp_path / "store", {"S": 64})
    assert len(store) == 3
    actual = store.rows(["key 0", "key 1", "key 2"])[:]
    np.testing.assert_array_equal(actual[:2], vectors(2, seed=2))
    np.testing.assert_array_equal(actual[2], vectors(3, seed=1)[2])


def test_two_that_write_at_once_do_not_replace_each_others_shards(tmp_path):
    stores = [open_store(tmp_path / "store", {}) for _ in range(2)]
    for number, store in enumerate(stores):
        store.add([f"of {number}"], vectors(1, seed=number))
        store.flush()
    store = open_store(tmp_path / "store", {})
    for number in range(2):
        np.testing.assert_array_equal(store.rows([f"of {number}"])[:], vectors(1, seed=number))


@pytest.mark.parametrize(
    ("made_with", "message"),
    [
        ({"S": 800}, "S 64 (now 800)"),
        ({"S": 64, "backbone weights": "abc"}, "backbone weights None (now abc)"),
    ],
)
def test_a_store_made_with_other_settings_is_refused_by_name(tmp_path, made_with, message):
    filled(tmp_path / "store", vectors(1), {"S": 64})
    with pytest.raises(UserError, match=rf"^{tmp_path / 'store'} was saved with other settings") as caught:
        open_store(tmp_path / "store", made_with)
    assert message in str(caught.value)
    with pytest.raises(UserError, match=r"store precision float32 \(now float16\)"):
        open_store(tmp_path / "store", {"S": 64}, precision="float16")


def test_of_a_store_of_another_method_the_folder_is_to_be_deleted_not_its_settings(tmp_path):
    folder = tmp_path / "store"
    filled(folder, vectors(1), {"method": 1})
    with pytest.raises(UserError, match=rf"^{folder} was saved by another version .*: delete it and create"):
        open_store(folder, {"method": 2})
    (folder / "store.json").unlink()
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=rf"^{folder} holds descriptors without .*: delete the folder, or"):
        open_store(folder, {"method": 2})
    assert sorted(folder.iterdir()) == before
    shutil.rmtree(folder)
    assert len(open_store(folder, {"method": 2})) == 0


def test_a_store_whose_settings_appear_meanwhile_is_joined(tmp_path, monkeypatch):
    filled(tmp_path / "other", vectors(1))

    def finish(folder):
        shutil.copytree(tmp_path / "other", folder, dirs_exist_ok=True)
        return shard_records(folder)

    monkeypatch.setattr(descriptor_store, "shard_records", finish)
    (tmp_path / "store").mkdir()
    assert "key 0" in open_store(tmp_path / "store", {"S": 64})


def test_settings_that_json_keeps_otherwise_are_still_the_same(tmp_path):
    filled(tmp_path / "store", vectors(1), {"scales": (0.5, 1.0)})
    assert len(open_store(tmp_path / "store", {"scales": (0.5, 1.0)})) == 1


def test_a_store_that_another_process_is_making_is_joined(tmp_path):
    for name in (".store.json.7.tmp", "shard-00000001-0123abcd.npy"):
        (tmp_path / name).touch()
    store = open_store(tmp_path, {})
    store.add(["key"], vectors(1))
    store.flush()
    assert "key" in open_store(tmp_path, {})


def test_other_files_beside_the_shards_are_left_alone(tmp_path):
    filled(tmp_path, vectors(2))
    others = [
        tmp_path / name for name in ("shard-notes.json", "shard-thesis.npy", "notes.txt", ".shard-x.tmp")
    ]
    for path in others:
        path.touch()
        os.utime(path, (time.time() - 4000,) * 2)
    assert len(open_store(tmp_path, {"S": 64}, tidy=True)) == 2
    assert all(path.exists() for path in others)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty and not a descriptor store"):
        open_store(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (".npy", flip_a_bit),
        (".npy", lambda path: path.write_bytes(path.read_bytes()[:-5])),
        (".npy", lambda path: path.write_bytes(b"")),
        (".json", lambda path: path.write_text("{")),
        (".json", lambda path: path.write_text("[]")),
        (".json", lambda path: path.write_text('{"keys": ["key 0"], "crc32": 0}')),
        (".json", lambda path: path.write_text("{}")),
        (".json", lambda path: path.write_text('{"keys": [[], {}], "crc32": 0}')),
        (".json", lambda path: path.write_text("[" * 100_000)),
        (".npy", lambda path: np.save(path, vectors(2).astype(np.float64))),
        (".npy", lambda path: np.save(path, vectors(2).astype(">f4"))),
        (".npy", lambda path: np.save(path, np.asfortranarray(vectors(2)))),
        (".npy", lambda path: np.save(path, np.empty((2, 0), np.float32))),
    ],
)
def test_an_unreadable_shard_is_named_and_can_be_deleted(tmp_path, suffix, change):
    filled(tmp_path / "store", vectors(2))
    (path,) = (tmp_path / "store").glob(f"shard-*{suffix}")
    change(path)
    with pytest.raises(UserError, match=r"is unreadable: .*; delete it") as caught:
        open_store(tmp_path / "store", {"S": 64})
    assert path.stem in str(caught.value)
    Path(str(caught.value).split(" is unreadable")[0]).unlink()
    assert len(open_store(tmp_path / "store", {"S": 64})) == 0


def test_a_shard_of_another_width_or_with_nan_is_unreadable(tmp_path):
    filled(tmp_path / "width", vectors(2))
    filled(tmp_path / "width", vectors(2, width=5))
    with pytest.raises(
        UserError, match=r"shard-\S+npy is unreadable: its shape is 2 x 5, expected 2 x 6; delete it"
    ):
        open_store(tmp_path / "width", {"S": 64})
    filled(tmp_path / "nan", np.full((2, 6), np.nan, np.float32))
    with pytest.raises(UserError, match=r"unreadable: it holds values that are not finite; delete it"):
        open_store(tmp_path / "nan", {"S": 64})


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_pipe_as_a_shard_is_named_and_one_that_cannot_be_read_is_not_to_be_deleted(tmp_path, suffix):
    filled(tmp_path, vectors(2))
    (path,) = tmp_path.glob(f"shard-*{suffix}")
    data = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=rf"cannot read {path}: it is a pipe, not a file; delete it"):
        open_store(tmp_path, {"S": 64})
    path.unlink()
    path.write_bytes(data)
    assert len(open_store(tmp_path, {"S": 64})) == 2


@pytest.mark.parametrize("text", ["", "[]", "\0", "[" * 100_000, '{"S": [[1]]}'])
def test_unreadable_settings_are_one_line_of_error(tmp_path, text):
    filled(tmp_path, vectors(1))
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(UserError, match=r"store\.json is unreadable: .*; name another folder"):
        open_store(tmp_path, {"S": 64})


def test_what_a_killed_process_left_an_hour_ago_is_removed(tmp_path):
    filled(tmp_path / "store", vectors(2))
    left = [tmp_path / "store" / name for name in ("shard-00000007-x.npy", ".shard-00000007-x.json.1.tmp")]
    for path in left:
        path.write_bytes(b"half")
    assert len(open_store(tmp_path / "store", {"S": 64})) == 2
    assert all(path.exists() for path in left)  # their process may still run
    for path in left:
        os.utime(path, (time.time() - 4000,) * 2)
    assert len(open_store(tmp_path / "store", {"S": 64})) == 2
    assert all(path.exists() for path in left)
    assert len(open_store(tmp_path / "store", {"S": 64}, tidy=True)) == 2
    assert not any(path.exists() for path in left)


def test_thousands_of_shards_keep_no_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD_ROWS", 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        rows = vectors(100)
        filled(tmp_path, rows)
        database = open_store(tmp_path, {"S": 64}).rows([f"key {row}" for row in range(100)])
        np.testing.assert_array_equal(database[:], rows)
        assert sum(len(indices) for indices, _ in database.blocks()) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_compacting_loses_nothing_and_those_who_read_can_go_on(tmp_path):
    filled(tmp_path, vectors(6, seed=1))
    filled(tmp_path, vectors(3, seed=2))
    reader = open_store(tmp_path, {"S": 64})
    before = reader.rows(["key 5", "key 0"])
    store = open_store(tmp_path, {"S": 64}, tidy=True)
    store.compact(["key 0", "key 5"])
    assert store.stored == len(store) == 2
    expected = np.stack([vectors(6, seed=1)[5], vectors(3, seed=2)[0]])
    for rows in (
        before,
        store.rows(["key 5", "key 0"]),
        open_store(tmp_path, {"S": 64}, tidy=True).rows(["key 5", "key 0"]),
    ):
        np.testing.assert_array_equal(rows[:], expected)
    assert "key 1" not in open_store(tmp_path, {"S": 64})


WRITE = """
import sys
import numpy as np
from pathlib import Path
from utils.descriptors import store as descriptor_store
descriptor_store.SHARD_ROWS = 16
store = descriptor_store.open_store(Path(sys.argv[1]), {})
for number in range(len(store), 1_000_000):
    store.add([str(number)], np.full((1, 64), number, np.float32))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_process_killed_at_any_moment_loses_less_than_two_shards(tmp_path):
    rng = np.random.default_rng(0)
    folder, before = tmp_path / "store", 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(int(rng.integers(1, 400))):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        last = int(rest[-1]) if rest else last
        store = open_store(folder, {})
        actual = store.rows([str(number) for number in range(len(store))])[:]
        np.testing.assert_array_equal(
            actual, np.repeat(np.arange(len(store), dtype=np.float32)[:, None], 64, 1)
        )
        assert len(store) > last - 32
        assert len(store) >= before
        before = len(store)
    assert before > 100
