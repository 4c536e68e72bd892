"""The benchmarks run and print their tables. Speed is not tested."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image
from PIL import Image

import Search_Images
from benchmarks import __main__ as report
from benchmarks import (
    evaluation,
    evaluation_search,
    near_duplicates,
    page,
    query,
    reranking,
    resize,
    scoring,
    search,
    shared_search,
    timing,
)
from utils.descriptors import store as descriptor_store
from utils.image_index import image_index
from utils.images.loading import InputImage
from utils.processes import ALONE

ROOT = Path(__file__).parents[1]


def table_rows(text):
    """Return the rows of tables by their first cell: the first row of each."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return {line.split("|")[1].strip(): line for line in reversed(lines)}


def in_this_process(function, calls, at_once=1):
    return (function(*call) for call in calls)


def test_the_report_has_the_rate_and_memory_of_every_stage_and_size(monkeypatch, capsys):
    for module in (evaluation, timing):  # a fresh process for each figure would take a minute
        monkeypatch.setattr(module, "each_alone", in_this_process)
    monkeypatch.setattr(scoring, "IMAGES", 1000)
    options = ["--backbone", "efficientnet_lite0", "--images", "2", "--rounds", "1", "--longer-side", "256"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options, "--sizes", "300"])
    report.command_line()
    text = capsys.readouterr().out
    rows = table_rows(text)
    stages = {
        *("decode", "resize", "normalise and copy", "head", "evaluation here", "original"),
        *("backbone alone, as published", "backbone alone, folded, channels_last: the bound"),
    }
    assert stages <= set(rows)
    for stage in stages:
        cells = rows[stage].split("|")
        assert float(cells[2]) > 0
        assert float(cells[5]) > 50  # MB, which Python and PyTorch alone exceed
    assert "100.0 %" in rows["evaluation here"]
    assert re.search(r"Decode, resize and head: \d+\.\d % of the evaluation", text)
    assert {"here", "ranking and walking through names"} <= set(rows)
    on_disk, to_open, to_search = map(float, rows["300"].split("|")[8:11])
    assert on_disk == pytest.approx(300 * 2048 * 2 / 2**20, abs=0.6)
    assert to_search >= to_open > 50


def test_the_resize_is_compared_with_opencvs_for_each_size(monkeypatch, capsys):
    pytest.importorskip("cv2")
    monkeypatch.setattr(resize, "SIZES", ((40, 30), (80, 60)))
    threads = torch.get_num_threads()
    try:
        resize.report(1)
    finally:
        torch.set_num_threads(threads)
    rows = table_rows(capsys.readouterr().out)
    assert {"40 x 30", "80 x 60"} <= set(rows)
    assert all(float(cell) > 0 for cell in rows["40 x 30"].split("|")[2:5:2])


@pytest.mark.slow
def test_a_dry_run_of_the_gpus_checks_passes_and_measures_every_case():
    sizes = ["--images", "1", "--longer-side", "192", "--rows", "300", "--pass-seconds", "0.01"]
    text = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", *sizes],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    checks = [line for line in text.splitlines() if line.endswith("| pass |")]
    assert len(checks) == 2 * 3 + 2
    assert "FAIL" not in text
    for precision in ("float32", "bfloat16", "float16"):
        assert re.search(rf"\| {precision} \| 16 \| no \| \d+\.\d \| \d+\.\d \|", text)
        assert f"| {precision} | 16 | yes |" in text
    assert {"exact search", "original, float32"} <= set(table_rows(text))


@pytest.mark.slow
def test_without_a_gpu_its_benchmark_is_one_line_of_error():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*--device cpu.*\n", done.stderr)
    assert done.stdout == ""


ALLOWED = {"torch", "torchvision", "PIL", "numpy"}
IMPORTED = """
import sys, torch, torchvision, numpy, PIL.Image
for name in list(sys.modules):
    if name.split(".")[0] in {"tqdm", "scipy", "matplotlib", "sklearn", "faiss"}:
        del sys.modules[name]
import benchmarks.gpu
print(*{name.split(".")[0] for name in sys.modules})
"""


@pytest.mark.slow
def test_the_gpus_benchmark_needs_torch_torchvision_pillow_and_numpy_alone():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & {"tqdm", "scipy", "matplotlib", "sklearn", "faiss"} == set()
    assert set(done.stdout.split()) >= ALLOWED


def test_drawn_descriptors_are_of_length_1_and_lie_around_centres():
    rows = search.drawn(np.random.default_rng(1), 3000)
    assert rows.shape == (3000, 2048)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    similar = rows @ rows.T
    np.fill_diagonal(similar, 0)
    # About two other images share an image's centre; images of other centres are nearly orthogonal to it.
    assert np.median(similar.max(axis=1)) > 0.5
    assert abs(np.median(similar)) < 0.01


def test_an_incomplete_store_is_completed_with_the_same_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptor_store, "SHARD_ROWS", 400)
    monkeypatch.setattr(search, "WRITTEN", 400)
    for name in ("full", "part"):
        search.write_store(tmp_path / name, 1000)
    for shard in sorted((tmp_path / "part").glob("shard-*"))[2:]:  # two files each
        shard.unlink()
    search.write_store(tmp_path / "part", 1000)
    full, part = (search.rows_of(tmp_path / name, 1000, verify=True)[:] for name in ("full", "part"))
    np.testing.assert_array_equal(full, part)


def test_the_index_of_the_query_benchmark_has_one_image_and_unit_descriptors(tmp_path):
    image = tmp_path / "images" / "drawn.jpg"
    image.parent.mkdir()
    Image.new("RGB", (8, 8)).save(image)
    query.make_index(tmp_path / "index", image, 5000)
    index = image_index.read_index(tmp_path / "index")
    assert len(index.names) == 5000
    assert index.index_of(InputImage(image)) == 0
    np.testing.assert_allclose(np.linalg.norm(index.rows[:], axis=1), 1, rtol=1e-5)
    (match,) = Search_Images.search(image, index=index, top=1)
    assert (match.path, match.similarity) == (image, pytest.approx(1))


@pytest.mark.slow
def test_the_benchmark_of_the_page_measures_each_search_and_compares_it_with_a_process(tmp_path, capsys):
    page.report(page.PageBenchmarkOptions(images=2, rounds=1), tmp_path)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 6
    assert rows[0][0] == "query as a process, new image"
    assert rows[4][0] == "page: search for a box, 2 heat maps for the first time"
    for _, seconds, speed_up in rows:
        assert float(speed_up) == pytest.approx(float(rows[0][1]) / float(seconds), rel=0.1, abs=0.06)


def test_the_search_of_an_evaluation_is_measured_at_each_size(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(timing, "each_alone", in_this_process)
    options = evaluation_search.EvaluationSearchOptions(
        sizes=(150, 300), rounds=1, graph_size=200, folder=tmp_path
    )
    evaluation_search.report(options)
    rows = table_rows(capsys.readouterr().out)
    for size in ("150", "300"):
        product, found, _, with_drawn, _, memory = rows[size].split("|")[2:8]
        assert min(map(float, (product, found, with_drawn))) >= 0
        assert float(memory) > 50
    for job in ("graph", "augmentation"):
        assert float(rows[job].split("|")[4]) > 50
    assert {path.name for path in tmp_path.iterdir()} == {"150", "300", "200"}


def test_a_shared_search_prints_the_memory_of_each_process(capsys, tmp_path):
    options = shared_search.SharedSearchOptions(size=300, width=16, folder=tmp_path)
    shared_search.report(options, ALONE)
    rows = table_rows(capsys.readouterr().out)
    assert min(map(float, rows["0"].split("|")[4:7])) > 50


def test_the_rerankings_have_a_time_each(monkeypatch, capsys):
    pytest.importorskip("cv2")
    monkeypatch.setattr(reranking, "POINTS", 50)
    options = ["--images", "5", "--dimensions", "16", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.reranking", *options])
    reranking.command_line()
    rows = table_rows(capsys.readouterr().out)
    assert "re-ranking of 5 images" in rows
    for name in ("k-reciprocal", "superglobal", "regions", "geometry"):
        assert float(rows[name].split("|")[2]) > 0


def test_near_duplicates_are_counted_at_each_threshold(tmp_path, monkeypatch, capsys):
    for seed, name in enumerate(["a.png", "b.png", "c.png"]):
        draw_image(tmp_path / name, seed)
    shutil.copy(tmp_path / "c.png", tmp_path / "copy.png")
    options = ["--S", "64", "--pooling", "mac", "--no-whiten", "--device", "cpu", "--workers", "0"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.near_duplicates", str(tmp_path), "--copied", "2", *options])
    near_duplicates.command_line()
    out = capsys.readouterr().out
    rows = table_rows(out)
    for name in (*near_duplicates.WEAK, *near_duplicates.STRONG):
        assert -1 <= float(rows[name].split("|")[2]) <= float(rows[name].split("|")[3]) <= 1.001
    pairs = [int(rows[f"{threshold:.2f}"].split("|")[4]) for threshold in near_duplicates.THRESHOLDS]
    assert 1 <= pairs[0] <= pairs[-1] <= 6
    assert f"1.000\t{tmp_path / 'c.png'}\t{tmp_path / 'copy.png'}" in out
