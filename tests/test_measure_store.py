"""Evaluations with a store of descriptors give the same scores, and describe no image twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, TORCHRUN, draw_image, evaluation, write_query

from utils.images import batches as size_batches

CHANNELS = 1280


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def decoded(monkeypatch):
    """A list to which the name of each decoded file is appended."""
    names = []
    load = size_batches.load_pixels

    def noted(image, longer_side):
        names.append(image.path.name)
        return load(image, longer_side)

    monkeypatch.setattr(size_batches, "load_pixels", noted)
    return names


def error_line(result):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def rows_by_image(store):
    """Return the descriptors of a store by (file name, box), read from its documented files."""
    descriptors = {}
    for record in sorted(store.glob("shard-*.json")):
        keys = json.loads(record.read_text())["keys"]
        rows = np.load(record.with_suffix(".npy"))
        for key, row in zip(keys, rows, strict=True):
            name, *_, box = key.split("\0")
            descriptors[name, box] = row
    return descriptors


def scores(results):
    return {name: value for name, value in results.items() if name.startswith(("AP", "mAP"))}


def ranking(output, query="q_1"):
    return (output / "rankings" / f"{query}.rnk").read_text().split()


def results_in(output):
    return json.loads((output / "results.json").read_text())


def test_a_second_run_describes_nothing_and_prints_the_same(measure, store, decoded, monkeypatch):
    status, out, _ = measure("--descriptors", store)
    assert status == 0
    assert sorted(decoded) == ["a.png", "a.png", "b.png", "c.png", "d.png"]
    monkeypatch.setattr(size_batches, "load_pixels", lambda *_: pytest.fail("an image is decoded"))
    assert measure("--descriptors", store)[:2] == (0, out)
    assert len(list(store.glob("shard-*.npy"))) == 2  # of the query and of the images


def test_where_all_comes_from_the_store_at_once_no_rate_is_divided_by_zero(measure, store, monkeypatch):
    assert measure("--descriptors", store)[0] == 0
    monkeypatch.setattr(time, "perf_counter", lambda: 1.0)
    assert measure("--descriptors", store)[0] == 0


def test_a_run_with_a_store_equals_one_without(measure, store, tmp_path):
    _, out, _ = measure("--output", tmp_path / "without")
    for name in ("first", "second"):
        assert measure("--descriptors", store, "--output", tmp_path / name)[:2] == (0, out)
        assert scores(results_in(tmp_path / name)) == scores(results_in(tmp_path / "without"))
        assert ranking(tmp_path / name) == ranking(tmp_path / "without")
    rows = rows_by_image(store)
    with np.load(tmp_path / "without" / "descriptors.npz") as arrays:
        expected = {(f"{name}.png", ""): row for name, row in zip("abcd", arrays["descriptors"], strict=True)}
        expected["a.png", "0.0 0.0 40.0 40.0"] = arrays["query_descriptors"][0]
    assert rows.keys() == expected.keys()
    for image, row in expected.items():
        np.testing.assert_array_equal(rows[image], row)


def test_a_changed_image_alone_is_described_anew(measure, dataset, store, decoded, tmp_path):
    measure("--descriptors", store)
    decoded.clear()
    draw_image(dataset / "jpg" / "c.png", seed=77)
    status, out, _ = measure("--descriptors", store, "--output", tmp_path / "with")
    assert status == 0
    assert decoded == ["c.png"]
    assert measure("--output", tmp_path / "without")[1] == out
    assert ranking(tmp_path / "with") == ranking(tmp_path / "without")


def test_another_box_of_a_query_is_described_anew(measure, dataset, store, decoded):
    measure("--descriptors", store)
    decoded.clear()
    write_query(dataset, "q_1", "a 0 0 40 41", good="b", ok="c", junk="d")
    assert measure("--descriptors", store)[0] == 0
    assert decoded == ["a.png"]


def test_a_removed_image_is_in_no_ranking_and_an_added_one_is(measure, dataset, store, decoded, tmp_path):
    measure("--descriptors", store)
    decoded.clear()
    (dataset / "jpg" / "b.png").rename(tmp_path / "b.png")
    draw_image(dataset / "jpg" / "aa.png", seed=9)
    status, out, _ = measure("--descriptors", store, "--output", tmp_path / "with")
    assert status == 0
    assert decoded == ["aa.png"]
    assert sorted(ranking(tmp_path / "with")) == ["a", "aa", "c", "d"]
    assert measure("--output", tmp_path / "without")[1] == out
    assert ranking(tmp_path / "with") == ranking(tmp_path / "without")
    decoded.clear()
    (tmp_path / "b.png").rename(dataset / "jpg" / "b.png")  # the same file, moved back
    assert measure("--descriptors", store)[0] == 0
    assert not decoded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--S", "32"], "S 64 (now 32)"),
        (["--L", "2"], "L 5 (now 2)"),
        (["--pooling", "mac"], "pooling rmac (now mac)"),
        (["--compare", "rmac,mac"], "pooling rmac (now rmac,mac)"),
        (["--scales", "1,0.5"], "scales [1.0] (now [1.0, 0.5])"),
        (["--precision", "bfloat16"], "precision float32 (now bfloat16)"),
        (["--store-precision", "float16"], "store precision float32 (now float16)"),
    ],
)
def test_a_store_of_other_settings_is_refused_before_any_work(measure, store, decoded, options, message):
    measure("--descriptors", store)
    decoded.clear()
    line = error_line(measure("--descriptors", store, *options))
    assert f"{store} was saved with other settings" in line
    assert message in line
    assert not decoded


def test_a_store_of_another_exponent_is_refused_before_any_work(measure, store, decoded):
    assert measure("--descriptors", store, "--pooling", "gem")[0] == 0
    decoded.clear()
    assert measure("--descriptors", store, "--pooling", "gem", "--gem-p", "3", "--L", "2")[0] == 0
    line = error_line(measure("--descriptors", store, "--pooling", "gem", "--gem-p", "4"))
    assert f"{store} was saved with other settings: gem_p 3.0 (now 4.0); give the options" in line
    assert not decoded


def test_options_without_effect_on_descriptors_keep_the_store(measure, store, decoded):
    measure("--descriptors", store)
    decoded.clear()
    options = ["--qe", "1", "--alpha", "2", "--dba", "1", "--diffusion", "1", "--batch-size", "3"]
    assert measure("--descriptors", store, *options, "--seed", "4", "--activation", "softplus")[0] == 0
    assert not decoded


@pytest.fixture
def heads(tmp_path):
    """A folder of small attention and whitening files."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "weights" / "efficientnet_lite0"
    folder.mkdir(parents=True)
    shapes = {"conv_att_1.weight": (64, 2 * CHANNELS, 1), "conv_att_1.bias": (64,)}
    shapes |= {"conv_att_2.weight": (1, 64, 1), "conv_att_2.bias": (1,)}
    state = {name: torch.from_numpy(rng.standard_normal(shape)).float() for name, shape in shapes.items()}
    torch.save(state, folder / "ContextAwareRegionalAttention_weights.pth")
    np.save(folder / "pca_components.npy", rng.standard_normal((8, CHANNELS)).astype(np.float32))
    np.save(folder / "pca_mean.npy", -rng.random(CHANNELS, np.float32))
    return folder


def change_attention(folder):
    path = folder / "ContextAwareRegionalAttention_weights.pth"
    state = torch.load(path, weights_only=True)
    state["conv_att_2.bias"][0] += 1e-3
    torch.save(state, path)


def change_array(name):
    def change(folder):
        values = np.load(folder / name)
        values.ravel()[3] = np.nextafter(values.ravel()[3], np.float32(9))
        np.save(folder / name, values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_attention, "attention weights "),
        (change_array("pca_components.npy"), "whitening "),
        (change_array("pca_mean.npy"), "whitening "),
    ],
)
def test_a_store_of_other_weights_is_refused_by_the_name_of_the_part(measure, store, heads, change, message):
    network = ["--backbone", "efficientnet_lite0", "--device", "cpu"]
    assert measure("--descriptors", store, network=network)[0] == 0
    change(heads)
    line = error_line(measure("--descriptors", store, network=network))
    assert f"{store} was saved with other settings: {message}" in line
    assert line.count("(now ") == 1


def test_float16_keeps_the_directions_in_half_the_space(measure, store, tmp_path):
    measure("--descriptors", store)
    status, out, _ = measure("--descriptors", tmp_path / "half", "--store-precision", "float16")
    assert status == 0
    full, half = rows_by_image(store), rows_by_image(tmp_path / "half")
    assert full.keys() == half.keys()
    for image, row in full.items():
        assert half[image].dtype == np.float16
        wide, narrow = row.astype(np.float64), half[image].astype(np.float64)
        assert wide @ narrow / np.linalg.norm(wide) / np.linalg.norm(narrow) >= 0.9999
    again = measure("--descriptors", tmp_path / "half", "--store-precision", "float16")
    assert again[:2] == (0, out)


SMALL_SHARDS_UP_TO_G = """
import sys
import time

import Measure_OxfordParis
from utils.descriptors import store as descriptor_store
from utils.images import batches as size_batches

descriptor_store.SHARD_ROWS = 2
load = size_batches.load_pixels


def load_but_for_g(image, longer_side):
    while image.path.stem == "g":
        time.sleep(1)
    return load(image, longer_side)


size_batches.load_pixels = load_but_for_g
Measure_OxfordParis.command_line(sys.argv[1:])
"""
"""An evaluation that waits at the image g until it is killed."""


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_shards_and_ends_as_an_unbroken_one(
    measure, dataset, store, decoded, tmp_path
):
    for seed, name in enumerate("efgh", start=10):
        draw_image(dataset / "jpg" / f"{name}.png", seed)
    _, expected, _ = measure("--output", tmp_path / "unbroken")
    words = [str(word) for word in evaluation(dataset, "--descriptors", store)[1:]]
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL_SHARDS_UP_TO_G, *words], cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 120
        while len(list(store.glob("shard-*.json"))) < 3 and process.poll() is None:  # the query, a b, c d
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err

    decoded.clear()
    status, out, _ = measure("--descriptors", store, "--output", tmp_path / "resumed")
    assert (status, out) == (0, expected)
    assert not {"a.png", "b.png", "c.png", "d.png"} & set(decoded)
    assert {"g.png", "h.png"} <= set(decoded)
    assert scores(results_in(tmp_path / "resumed")) == scores(results_in(tmp_path / "unbroken"))
    assert ranking(tmp_path / "resumed") == ranking(tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "searches"), [(2, []), (3, ["--dba", "2", "--qe", "2", "--diffusion", "2"])]
)
def test_processes_that_share_a_store_do_what_one_does(
    measure, dataset, store, decoded, tmp_path, count, searches
):
    (dataset / "jpg" / "broken.png").write_bytes(b"")
    _, out, _ = measure("--skip-bad-images", "--output", tmp_path / "one", *searches)
    options = ["--skip-bad-images", "--descriptors", store, "--output", tmp_path / "two", *searches]
    launch = [*TORCHRUN, "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*launch, *evaluation(dataset, *options)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == out
    assert scores(results_in(tmp_path / "two")) == scores(results_in(tmp_path / "one"))
    assert ranking(tmp_path / "two") == ranking(tmp_path / "one")
    writers = {path.stem.split("-")[2] for path in store.glob("shard-*.npy")}
    assert len(writers) >= 2  # a process whose only image is broken writes nothing
    decoded.clear()
    assert measure(*options)[:2] == (0, out)
    assert decoded == ["broken.png"]


def test_an_unreadable_image_is_left_out_and_read_again_in_the_next_run(
    measure, dataset, store, decoded, tmp_path
):
    _, out, _ = measure()
    broken = dataset / "jpg" / "bb.png"
    broken.write_bytes((dataset / "jpg" / "d.png").read_bytes()[:60])
    assert "bb.png cannot be decoded" in error_line(measure("--descriptors", store))
    for _ in range(2):
        decoded.clear()
        result = measure("--descriptors", store, "--skip-bad-images", "--output", tmp_path / "out")
        assert result[:2] == (0, out)
        assert results_in(tmp_path / "out")["images_left_out"] == [str(broken)]
        assert sorted(ranking(tmp_path / "out")) == list("abcd")
    assert decoded == ["bb.png"]
    draw_image(broken, seed=5)
    measure("--descriptors", store, "--output", tmp_path / "out")
    assert sorted(ranking(tmp_path / "out")) == ["a", "b", "bb", "c", "d"]


def test_what_a_failed_run_had_described_is_kept(measure, dataset, store, decoded):
    (dataset / "jpg" / "e.png").write_bytes(b"")
    error_line(measure("--descriptors", store))
    (dataset / "jpg" / "e.png").unlink()
    decoded.clear()
    assert measure("--descriptors", store)[0] == 0
    # A batch is stored when the next one is computed: at most one batch is lost.
    assert set(decoded) <= {"d.png"}


def test_an_earlier_runs_descriptors_do_not_stand_beside_new_results(measure, store, tmp_path):
    measure("--output", tmp_path / "out")
    assert (tmp_path / "out" / "descriptors.npz").exists()
    measure("--descriptors", store, "--output", tmp_path / "out", "--S", "32")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ranking.run",
        "rankings",
        "results.json",
        "scores.csv",
    ]


def test_the_store_may_be_the_output_folder(measure, store):
    for _ in range(2):
        assert measure("--descriptors", store, "--output", store)[0] == 0
    assert results_in(store)["images"] == 4


def test_a_folder_that_cannot_hold_a_store_is_refused_before_any_work(measure, store, decoded, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"cannot write {path}" in error_line(measure("--descriptors", path))
    store.mkdir()
    (store / "thesis.tex").touch()
    assert f"{store} is not empty and not a descriptor store" in error_line(measure("--descriptors", store))
    (store / "thesis.tex").rename(store / "store.json")
    assert "store.json is unreadable" in error_line(measure("--descriptors", store))
    assert not decoded


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(measure, store):
    store.mkdir(mode=0o500)
    assert f"cannot write {store}" in error_line(measure("--descriptors", store))


def test_two_data_sets_of_equal_names_sizes_and_times_share_a_store(dataset, measure, tmp_path, store):
    other = dataset.with_name("Other")
    for folder, names in ((dataset, "abcd"), (other, "dcba")):
        (folder / "jpg").mkdir(parents=True, exist_ok=True)
        for path in (folder / "jpg").iterdir():
            path.unlink()
        for seed, name in enumerate(names):
            draw_image(folder / "jpg" / f"{name}.ppm", seed)
            os.utime(folder / "jpg" / f"{name}.ppm", ns=(0, 0))
    shutil.copytree(dataset / "lab", other / "lab")
    rankings = []
    for name in ("Tiny", "Other"):
        measure("--dataset", name, "--descriptors", store, "--output", tmp_path / f"{name} by store")
        measure("--dataset", name, "--output", tmp_path / name)
        rankings.append(ranking(tmp_path / name))
        assert ranking(tmp_path / f"{name} by store") == rankings[-1]
    assert rankings[0] != rankings[1]
