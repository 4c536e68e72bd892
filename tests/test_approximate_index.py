import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_image, draw_images
from helpers import FAST_INDEX, INDEX_SETTINGS

from utils.descriptors.store import open_store
from utils.image_index import approximate_index, approximate_update
from utils.image_index.approximate_index import image_ids
from utils.image_index.approximate_update import update_approximate
from utils.image_index.catalogue import write_index
from utils.image_index.image_index import read_index

pytest.importorskip("faiss")

ROOT = Path(__file__).parents[1]
COUNT, WIDTH = 3000, 32


def clustered(count, seed=0):
    """Return vectors of length 1 around 60 centres, (count, WIDTH) float32."""
    centres = np.random.default_rng(7).standard_normal((60, WIDTH))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 60, count)] + 0.6 * rng.standard_normal((count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def keys_of(numbers):
    return [f"{number:06d}.jpg\x00{number}" for number in numbers]


def write_images(folder, keys, new_keys=(), new_rows=None):
    """Write an index of some keys after adding new descriptors to its store, and return it."""
    store = open_store(folder / "descriptors", INDEX_SETTINGS)
    if len(new_keys):
        store.add(new_keys, new_rows)
        store.flush()
        store.read()
    write_index(folder, folder / "images", keys, INDEX_SETTINGS, store)
    return read_index(folder)


def update(folder):
    index = read_index(folder)
    update_approximate(folder, index.keys, index.rows, index.settings)
    return read_index(folder)


@pytest.fixture
def index(tmp_path):
    """An approximate index of COUNT images."""
    folder = tmp_path / "index"
    write_images(folder, keys_of(range(COUNT)), keys_of(range(COUNT)), clustered(COUNT))
    return update(folder)


def first(rows, query, count):
    """Return the indices of the most similar rows by a full sort in float64."""
    return np.argsort(-(rows.astype(np.float64) @ query.astype(np.float64)), kind="stable")[:count].tolist()


def test_matches_are_those_of_a_full_sort_with_exact_similarities(index):
    rows = clustered(COUNT)
    queries = clustered(50, seed=1)
    shared = 0
    for query in queries:
        matches = index.nearest(query, 10)
        assert [value for _, value in matches] == pytest.approx(
            [float(rows[number] @ query) for number, _ in matches], abs=1e-6
        )
        assert sorted(matches, key=lambda match: -match[1]) == matches
        shared += len({number for number, _ in matches} & set(first(rows, query, 10)))
    assert shared / 500 > 0.95
    assert [number for number, _ in index.nearest(queries[0], 10, exact=True)] == first(rows, queries[0], 10)


def test_a_query_compares_few_images(index):
    assert index.approximate.record["probes"] < index.approximate.record["lists"] == COUNT // 40
    assert 50 <= len(index.approximate.candidates(clustered(1, seed=2)[0], 20)) <= 100
    assert len(index.approximate.candidates(clustered(1, seed=2)[0], 200)) <= 200


def test_more_matches_than_candidates_are_searched_exactly(index):
    rows, query = clustered(COUNT), clustered(1, seed=3)[0]
    assert [number for number, _ in index.nearest(query, COUNT + 1)] == first(rows, query, COUNT)


def test_the_recall_is_the_share_of_the_first_ten_of_a_sample_without_the_image_itself(index):
    rows = clustered(COUNT)
    drawn = np.sort(np.random.default_rng(0).choice(COUNT, 100, replace=False))
    shares = []
    for number in drawn:
        exact = [other for other in first(rows, rows[number], 11) if other != number][:10]
        shares.append(len(set(exact) & set(index.approximate.candidates(rows[number], 100))) / 10)
    assert index.approximate.record["recall"] == pytest.approx(np.mean(shares))
    assert index.approximate.record["recall"] >= 0.99


def test_images_come_and_go_without_new_centres(index):
    keys = keys_of(range(500, COUNT + 200))
    folder = index.location
    write_images(folder, keys, keys_of(range(COUNT, COUNT + 200)), clustered(200, seed=4))
    changed = update(folder)
    approximate = changed.approximate
    assert approximate.record["trained_on"] == COUNT
    assert approximate.lists.ntotal == COUNT - 500 + 200
    rows = np.concatenate([clustered(COUNT)[500:], clustered(200, seed=4)])
    for number in range(0, len(rows), 50):
        assert changed.nearest(rows[number], 1)[0] == (number, pytest.approx(1))
    assert len(list((folder / "approximate").iterdir())) == 4  # three files and their record


def test_new_centres_are_computed_once_the_index_has_grown(index):
    count = 4 * COUNT + 1
    new = keys_of(range(COUNT, count))
    write_images(index.location, keys_of(range(count)), new, clustered(count - COUNT, seed=5))
    assert update(index.location).approximate.record["trained_on"] == count


def test_images_that_came_after_the_lists_are_compared_and_images_that_went_left_out(index, caplog):
    keys = [*keys_of(range(10, COUNT)), *keys_of([COUNT])]
    new = clustered(1, seed=6)
    later = write_images(index.location, keys, keys_of([COUNT]), new)
    assert later.nearest(new[0], 1) == [(COUNT - 10, pytest.approx(1))]
    rows = np.concatenate([clustered(COUNT)[10:], new])
    for number in range(10):  # deleted images
        query = clustered(COUNT)[number]
        assert [match[0] for match in later.nearest(query, 3)] == first(rows, query, 3)
    assert caplog.text.count("note: 1 images came after the approximate index: run index again") == 1


def test_two_images_of_one_id_are_both_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(approximate_update, "FEWEST_IMAGES", 0)
    for module in (approximate_index, approximate_update):
        monkeypatch.setattr(module, "image_ids", lambda keys: np.array([int(key) // 2 for key in keys]))
    keys = [str(number) for number in range(200)]
    rows = clustered(200)
    write_images(tmp_path, keys, keys, rows)
    index = update(tmp_path)
    for number in range(0, 200, 11):
        assert index.nearest(rows[number], 1)[0][0] == number


def test_ids_are_the_first_63_bits_of_blake2b():
    import hashlib

    keys = ["a.jpg\x001", "é\udcff"]
    digests = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8) for key in keys]
    expected = [int.from_bytes(digest.digest(), "little") % 2**63 for digest in digests]
    assert image_ids(keys).tolist() == expected
    assert image_ids([]).tolist() == []


def change_lists(folder):
    (path,) = folder.glob("lists-*.faiss")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_record(folder):
    (folder / "approximate.json").write_text("{")


def change_settings(folder):
    record = json.loads((folder / "approximate.json").read_text())
    record["settings"]["S"] = 65
    (folder / "approximate.json").write_text(json.dumps(record))


def delete_ids(folder):
    (path,) = folder.glob("ids-*.npy")
    path.unlink()


@pytest.mark.parametrize("change", [change_lists, change_record, change_settings, delete_ids])
def test_an_approximate_index_that_is_not_valid_is_not_used_and_built_again(index, change, caplog):
    change(index.location / "approximate")
    changed = read_index(index.location)
    rows, query = clustered(COUNT), clustered(1, seed=8)[0]
    assert [number for number, _ in changed.nearest(query, 10)] == first(rows, query, 10)
    assert changed.approximate is None
    assert "approximate is not valid, so all images are compared: run index again" in caplog.text
    assert update(index.location).approximate is not None


def test_a_copied_index_is_used_without_a_note(index, tmp_path, caplog):
    shutil.copytree(index.location, tmp_path / "copy")
    copy = read_index(tmp_path / "copy")
    assert len(copy.approximate.pending) == 0
    assert copy.nearest(clustered(COUNT)[5], 1)[0][0] == 5
    assert caplog.text == ""


def test_an_unchanged_index_keeps_its_files(index):
    before = sorted((path, path.stat().st_mtime_ns) for path in (index.location / "approximate").iterdir())
    write_images(index.location, keys_of(range(COUNT)))
    update(index.location)
    after = sorted((path, path.stat().st_mtime_ns) for path in (index.location / "approximate").iterdir())
    assert after == before


UPDATES = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_approximate_index import clustered, keys_of, update, write_images
folder = Path(sys.argv[1])
print("ready", flush=True)
for number in range(10_000):
    present = range(number % 7 * 100, 3000 + number)
    write_images(folder, keys_of(present), keys_of([3000 + number]), clustered(1, seed=number))
    update(folder)
"""


@pytest.mark.slow
def test_an_update_killed_at_any_moment_loses_nothing(index):
    folder, rng = index.location, np.random.default_rng(0)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", UPDATES, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.05, 1.5)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        killed = read_index(folder)
        assert killed.approximate is not None
        for number in [*range(0, len(killed.keys), 300), len(killed.keys) - 1]:
            row = killed.rows[np.array([number])][0]
            assert killed.nearest(row, 1, number)[0] == (number, pytest.approx(1))
            assert killed.nearest(row, 1)[0][1] == pytest.approx(1)
    done = update(folder)
    assert len(done.approximate.pending) == 0
    assert done.approximate.lists.ntotal == len(done.keys)
    assert len(list((folder / "approximate").iterdir())) == 4


@pytest.fixture
def command(command, monkeypatch):
    """The command line, with approximate indexes from five images on."""
    monkeypatch.setattr(approximate_update, "FEWEST_IMAGES", 5)
    return command


@pytest.fixture
def images(tmp_path):
    """A folder of six images."""
    folder = tmp_path / "images"
    draw_images(folder, [f"{number}.png" for number in range(6)])
    return folder


def test_the_command_index_makes_an_approximate_index_and_later_runs_update_it(command, images):
    status, out, err = command("index", images, "--approximate", *FAST_INDEX)
    assert status == 0, err
    assert out.splitlines()[1] == "approximate index: 1 of 1 lists per query, recall@10 100.0 %"
    draw_image(images / "new.png", 70)
    assert command("index", images, *FAST_INDEX)[1].splitlines()[0].endswith("1 new or changed, 0 removed")
    assert read_index(Path("search_index")).approximate.lists.ntotal == 7
    approximate = command("query", images / "new.png", "--top", "3")
    assert approximate == command("query", images / "new.png", "--top", "3", "--exact")
    assert approximate[1].splitlines()[0].endswith("new.png")


def test_a_small_index_is_searched_exactly_with_a_note(command, images, monkeypatch, caplog):
    monkeypatch.setattr(approximate_update, "FEWEST_IMAGES", 7)
    status, out, _ = command("index", images, "--approximate", *FAST_INDEX)
    assert (status, out.count("\n")) == (0, 1)
    assert "note: all images are compared, since there are fewer than 7" in caplog.text
    assert not Path("search_index", "approximate").exists()


def test_an_index_that_became_small_has_no_approximate_index(command, images, monkeypatch, caplog):
    assert "approximate index: " in command("index", images, "--approximate", *FAST_INDEX)[1]
    (images / "1.png").unlink()
    monkeypatch.setattr(approximate_update, "FEWEST_IMAGES", 6)
    status, out, _ = command("index", images, *FAST_INDEX)
    assert (status, out.count("\n")) == (0, 1)
    assert "note: all images are compared, since there are fewer than 6" in caplog.text
    assert not Path("search_index", "approximate").exists()
    assert len(command("query", images / "2.png")[1].splitlines()) == 5


def test_an_index_that_became_empty_has_no_approximate_index(command, images):
    assert "approximate index: " in command("index", images, "--approximate", *FAST_INDEX)[1]
    for path in images.iterdir():
        path.unlink()
    status, out, _ = command("index", images, *FAST_INDEX)
    assert (status, out) == (0, f"0 images of {images} are in search_index: 0 new or changed, 6 removed\n")
    assert not Path("search_index", "approximate").exists()


def test_without_faiss_the_errors_say_what_to_do(command, images, monkeypatch):
    assert command("index", images, "--approximate", *FAST_INDEX)[0] == 0
    monkeypatch.setitem(sys.modules, "faiss", None)
    message = "error: FAISS is not installed: pip install faiss-cpu, or "
    assert command("query", images / "1.png")[2] == f"{message}give --exact\n"
    assert command("query", images / "1.png", "--exact", "--top", "1")[1].endswith("1.png\n")
    assert command("index", images, *FAST_INDEX)[2] == f"{message}delete search_index/approximate\n"
    shutil.rmtree("search_index/approximate")
    assert command("query", images / "1.png", "--top", "1")[1].endswith("1.png\n")
    assert command("index", images, *FAST_INDEX)[0] == 0
    assert command("index", images, "--approximate", *FAST_INDEX)[2] == f"{message}leave --approximate out\n"


def test_milvus_has_no_approximate_index(command, images):
    message = "has no effect in Milvus: leave one out"
    assert (
        command("index", images, "--approximate", "--milvus", "a.db")[2] == f"error: approximate {message}\n"
    )
    assert command("query", images / "1.png", "--exact", "--milvus", "a.db")[2] == f"error: exact {message}\n"
