import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    EMBEDDED,
    ROOT,
    SHARED,
    TWO_PROCESSES,
    assert_same_descriptors,
    authors_head_file,
    draw_image,
    evaluation,
    golden_arrays,
    needs_authors_head,
    needs_photographs,
    recipe_state_dict,
    run_on_small_disk,
    write_query,
)
from helpers import score_lines
from PIL import Image
from recipe import pca_arrays

import Measure_OxfordParis
from models.backbones.registry import BACKBONES
from models.retrieval_network import RetrievalNetwork
from utils.data.mini import MiniSettings, benchmark
from utils.errors import UserError
from utils.program.run_command import run_command
from utils.scoring.compute_ap import compute_ap


@pytest.fixture(scope="module")
def caffe_weights(tmp_path_factory):
    """A weights folder in which weights of the golden recipe replace the authors' files."""
    folder = tmp_path_factory.mktemp("weights")
    network = BACKBONES["resnet101_caffe"].features()
    state = recipe_state_dict(network, 2)
    torch.save({name: value for name, value in state.items() if "num_batches" not in name} | {
        "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000),
    }, folder / "resnet101_caffeProto.pth", _use_new_zipfile_serialization=False)  # fmt: skip
    np.save(folder / "pca_components.npy", pca_arrays(2048, 2)[0])
    np.save(folder / "pca_mean.npy", golden_arrays("backbone")["pca_mean"])
    if authors_head_file().is_file():
        (folder / authors_head_file().name).symlink_to(authors_head_file())
    return folder


def error_line(result):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.slow
def test_the_script_prints_the_originals_form_and_nothing_else(dataset, tmp_path):
    write_query(dataset, "q_2", "d 0 0 64 48", good="d")
    done = subprocess.run(
        [sys.executable, ROOT / "Measure_OxfordParis.py", "--dataset", dataset, "--S", "64", *EMBEDDED],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = score_lines(done.stdout)
    assert len(lines) == 9
    assert lines[4] == "Query expansion..."
    for part in (lines[:4], lines[5:]):
        percents = [float(line.split(": ")[1]) for line in part if line[0] != "-"]
        assert [line.split(":")[0] for line in part] == ["q_1", "q_2", "-" * 20, "Mean"]
        assert part[0] == f"q_1: {percents[0]:.2f}"
        assert part[3] == f"Mean: {percents[2]:.1f}"
        assert percents[2] == pytest.approx((percents[0] + percents[1]) / 2, abs=0.06)
    assert lines[1] == "q_2: 100.00"  # the query itself is its only positive


def test_the_output_files_are_consistent(measure, dataset, tmp_path):
    status, out, _ = measure("--output", tmp_path / "out")
    assert status == 0
    arrays = np.load(tmp_path / "out" / "descriptors.npz")
    assert arrays["names"].tolist() == list("abcd")
    assert arrays["query_names"].tolist() == ["q_1"]
    assert arrays["descriptors"].shape == (4, 1280)
    assert arrays["descriptors"].dtype == arrays["query_descriptors"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(arrays["descriptors"], axis=1), 1, rtol=1e-5)

    similarity = arrays["descriptors"] @ arrays["query_descriptors"][0]
    ranking = (tmp_path / "out" / "rankings" / "q_1.rnk").read_text().split()
    assert ranking == [arrays["names"][index] for index in np.argsort(-similarity)]
    precision = compute_ap(ranking, "b", "c", "d")

    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["AP"] == {"q_1": precision}
    assert results["mAP"] == precision
    assert score_lines(out)[0] == f"q_1: {100 * precision:.2f}"
    assert score_lines(out)[-1] == f"Mean: {100 * results['mAP_query_expansion']:.1f}"
    assert results["settings"]["S"] == 64
    assert results["settings"]["backbone"] == "efficientnet_lite0"
    assert results["versions"]["torch"] == torch.__version__
    assert set(results["seconds"]) == {"load", "queries", "images", "search", "scoring", "query expansion"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "descriptors.npz",
        "ranking.run",
        "rankings",
        "results.json",
        "scores.csv",
    ]


def test_without_expansion_only_the_plain_scores_are_printed(measure, tmp_path):
    _, with_expansion, _ = measure()
    _, out, _ = measure("--qe", "0", "--output", tmp_path / "out")
    assert score_lines(out) == score_lines(with_expansion)[:3]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["mAP_query_expansion"] is None


@needs_authors_head
def test_descriptors_with_the_authors_method_are_the_originals(measure, dataset, tmp_path, caffe_weights):
    # Saved without loss, and with S its longer side, the golden image reaches the network unchanged.
    arrays = golden_arrays("backbone")
    Image.fromarray(np.ascontiguousarray(arrays["224x160/bgr"][::-1].transpose(1, 2, 0))).save(
        dataset / "jpg" / "golden.png"
    )
    options = ["--S", "224", "--weights-dir", caffe_weights, "--output", tmp_path / "out"]
    status, _, err = measure(*options, network=["--device", "cpu"])
    assert status == 0, err
    output = np.load(tmp_path / "out" / "descriptors.npz")
    descriptor = output["descriptors"][output["names"].tolist().index("golden")]
    expected = arrays["224x160/descriptor"]
    assert descriptor @ expected / np.linalg.norm(expected) >= 0.99999


@pytest.mark.parametrize(
    "options", [["--batch-size", "3"], ["--workers", "2"], ["--batch-size", "2", "--workers", "1"]]
)
def test_batches_and_workers_change_nothing(measure, tmp_path, options):
    measure("--output", tmp_path / "one")
    measure("--output", tmp_path / "other", *options)
    one, other = (np.load(tmp_path / name / "descriptors.npz") for name in ("one", "other"))
    assert one["names"].tolist() == other["names"].tolist()
    np.testing.assert_allclose(one["descriptors"], other["descriptors"], atol=1e-5)


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.999), ("float16", 0.999)])
def test_half_precision_keeps_the_directions(measure, tmp_path, precision, least):
    measure("--output", tmp_path / "full")
    status, _, err = measure("--output", tmp_path / "half", "--precision", precision)
    assert status == 0, err
    full, half = (np.load(tmp_path / name / "descriptors.npz")["descriptors"] for name in ("full", "half"))
    assert (full * half).sum(axis=1).min() > least
    assert np.abs(full - half).max() > 0


@pytest.mark.slow
@needs_photographs
@pytest.mark.parametrize(("pooling", "expected", "expanded"), [("mac", 70.6, 55.1), ("rmac", 73.1, 62.6)])
def test_photographs_of_landmarks_score_as_by_another_implementation(pooling, expected, expanded):
    results = Measure_OxfordParis.main(
        "Landmarks",
        datasets_dir=SHARED / "data" / "datasets",
        backbone="efficientnet_lite0",
        S=1024,
        pooling=pooling,
        whiten=False,
        device="cpu",
    )
    assert 100 * results["mAP"] == pytest.approx(expected, abs=1.0)
    assert 100 * results["mAP_query_expansion"] == pytest.approx(expanded, abs=2.0)


def test_a_query_without_positives_is_left_out_of_the_mean(measure, dataset, tmp_path):
    _, before, _ = measure()
    write_query(dataset, "q_0", "b 0 0 9 9", junk="a")
    status, out, _ = measure("--output", tmp_path / "out")
    assert status == 0
    assert score_lines(out)[0] == "q_0: nan"
    assert [line for line in score_lines(out) if "q_0" not in line] == score_lines(before)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["AP"]["q_0"] is None


def test_an_image_of_one_pixels_height_is_described(measure, dataset, tmp_path, caffe_weights):
    draw_image(dataset / "jpg" / "line.png", size=(64, 8))
    Image.open(dataset / "jpg" / "line.png").crop((0, 0, 64, 1)).save(dataset / "jpg" / "line.png")
    caffe = ["--pooling", "rmac", "--weights-dir", caffe_weights, "--device", "cpu"]
    for network in (EMBEDDED, caffe):
        status, _, err = measure("--output", tmp_path / "out", network=network)
        assert status == 0, err
        arrays = np.load(tmp_path / "out" / "descriptors.npz")
        line = arrays["descriptors"][arrays["names"].tolist().index("line")]
        assert np.linalg.norm(line) == pytest.approx(1, abs=1e-5)


def test_a_program_can_score(measure, dataset, tmp_path):
    program = tmp_path / "compute_ap"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "good = open(sys.argv[1] + '_good.txt').read().split()\n"
        "print(0.125 if good == ['b'] and len(open(sys.argv[2]).read().split()) == 4 else 'wrong')\n"
    )
    program.chmod(0o755)
    status, out, err = measure("--eval-binary", program, "--metrics", "recall@3")
    assert status == 0, err
    assert out.count("q_1: 12.50\n") == out.count("recall@3: 100.0\n") == 2
    assert "no program at" in error_line(measure("--eval-binary", tmp_path / "missing"))


def test_an_undecodable_image_stops_with_its_name_unless_skipped(measure, dataset, tmp_path, caplog):
    _, before, _ = measure()
    (dataset / "jpg" / "e.png").write_bytes((dataset / "jpg" / "d.png").read_bytes()[:60])
    assert "e.png cannot be decoded" in error_line(measure("--output", tmp_path / "out"))
    assert not (tmp_path / "out").exists()

    status, out, _ = measure("--output", tmp_path / "out", "--skip-bad-images", "--workers", "2")
    assert status == 0
    assert out == before
    assert "e.png cannot be decoded" in caplog.text
    assert np.load(tmp_path / "out" / "descriptors.npz")["names"].tolist() == list("abcd")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["images_left_out"] == [str(dataset / "jpg" / "e.png")]


def test_a_query_on_an_undecodable_image_is_named_even_if_those_are_skipped(measure, dataset):
    (dataset / "jpg" / "a.png").write_bytes((dataset / "jpg" / "a.png").read_bytes()[:60])
    assert "query q_1: " in error_line(measure("--skip-bad-images"))


def test_invalid_options_are_reported(measure, tmp_path):
    assert "--S: '0' is not a whole number from 1 to 32768" in error_line(measure("--S", "0"))
    assert "unrecognized arguments: --pool" in error_line(measure("--pool", "rmac"))
    assert "--pooling: 'sum' is not one of ra, rmac, mac" in error_line(measure("--pooling", "sum"))
    assert "device 'gpu' cannot be used" in error_line(measure("--device", "gpu"))
    if not torch.cuda.is_available():
        assert "device 'cuda' cannot be used" in error_line(measure("--device", "cuda"))


def test_missing_files_are_reported_before_any_work(measure, dataset, tmp_path):
    assert "no data set at" in error_line(measure("--dataset", "Oxford"))
    assert "--pooling rmac --no-whiten" in error_line(measure(network=["--backbone", "efficientnet_lite0"]))
    assert "Prepare_Datasets.py weights" in error_line(measure(network=[]))
    assert "no weights at" in error_line(measure(network=["--pooling", "rmac", "--no-whiten"]))
    (tmp_path / "file").touch()
    assert "cannot write" in error_line(measure("--output", tmp_path / "file"))


def test_an_unreadable_weights_file_is_reported(measure, tmp_path, caffe_weights):
    weights = tmp_path / "weights"
    weights.mkdir()
    complete = caffe_weights / "resnet101_caffeProto.pth"
    with complete.open("rb") as file:
        (weights / complete.name).write_bytes(file.read(1_000_000))
    line = error_line(measure(network=["--pooling", "rmac", "--no-whiten"]))
    assert "resnet101_caffeProto.pth cannot be read" in line


def test_mini_draws_itself(tmp_path, capsys, monkeypatch):
    # Fewer images than Mini has, to save time.
    monkeypatch.setattr(benchmark, "MiniSettings", partial(MiniSettings, landmarks=2, distractors=4))
    words = ["--dataset", "Mini", "--datasets-dir", str(tmp_path), "--S", "128", *EMBEDDED]
    assert run_command(lambda: Measure_OxfordParis.command_line(words)) == 0
    lines = score_lines(capsys.readouterr().out)
    queries = [f"landmark0{landmark}_{number}" for landmark in range(2) for number in range(1, 4)]
    assert [line.split(":")[0] for line in lines[:6]] == queries
    assert len(list((tmp_path / "Mini" / "jpg").iterdir())) == 2 * 8 + 4


def test_an_earlier_outputs_other_files_are_left_alone(measure, dataset, tmp_path):
    write_query(dataset, "q_2", "b 0 0 40 40", good="a")
    measure("--output", tmp_path / "out")
    (tmp_path / "out" / "rankings" / "notes.txt").write_text("mine")
    for path in (dataset / "lab").glob("q_2_*"):
        path.unlink()
    measure("--output", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "rankings").iterdir()) == ["notes.txt", "q_1.rnk"]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_evaluation_that_fails_leaves_the_earlier_results(measure, tmp_path):
    program = tmp_path / "compute_ap"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    measure("--output", tmp_path / "out")
    before = files(tmp_path / "out")
    assert len(before) == 5
    line = error_line(measure("--output", tmp_path / "out", "--eval-binary", program, "--S", "80"))
    assert "failed on query q_1" in line
    assert files(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.json").write_text("mine")
    line = error_line(measure("--output", tmp_path / "mine"))
    assert "mine/results.json: it was not written by this program" in line


@pytest.mark.slow
def test_scores_are_printed_though_the_disk_of_the_output_is_full(dataset, tmp_path):
    (tmp_path / "disk").mkdir()
    command = [sys.executable, *evaluation(dataset, "--output", tmp_path / "disk" / "out")]
    done = run_on_small_disk(tmp_path / "disk", "16k", command, then="ls")
    assert done.returncode == 2
    assert re.search(r"^error: cannot write .*descriptors\.npz: the disk is full$", done.stderr, re.M)
    assert done.stdout.startswith("q_1: ")
    assert "Mean:" in score_lines(done.stdout)[-1]  # ls prints nothing


def test_the_longest_names_of_queries_are_evaluated(dataset, measure, tmp_path):
    name = "q" * 245
    write_query(dataset, name, "b 0 0 40 40", good="a")
    status, _, err = measure("--output", tmp_path / "out", "--figures", tmp_path / "figures")
    assert status == 0, err
    assert (tmp_path / "out" / "rankings" / f"{name}.rnk").read_text().split()[0] == "b"
    assert (tmp_path / "figures" / "results" / f"{name}.png").exists()


SCORER = """#!{python}
# Reads lists as VGG's program does, by getline: each line unchanged up to its line feed.
import sys

def read(path):
    lines = open(path, "rb").read().split(b"\\n")
    return lines if lines[-1] else lines[:-1]

good, ok, junk = (set(read(sys.argv[1] + "_" + label + ".txt")) for label in ("good", "ok", "junk"))
positives = good | ok
area, old_recall, old_precision, hits, index = 0.0, 0.0, 1.0, 0, 0
for name in read(sys.argv[2]):
    if name in junk:
        continue
    hits += name in positives
    recall, precision = hits / len(positives), hits / (index + 1)
    area += (recall - old_recall) * (old_precision + precision) / 2
    old_recall, old_precision, index = recall, precision, index + 1
print("%.6g" % area)
"""


@pytest.mark.parametrize(("end", "blank"), [("\n", ""), ("\r\n", ""), (" \t\n", "\n  \n"), ("\r\n", "\r\n")])
def test_a_program_gives_the_native_scores_for_every_line_end_of_the_labels(
    measure, dataset, tmp_path, end, blank
):
    (dataset / "jpg" / "b.png").rename(dataset / "jpg" / "b  of two.png")
    for label, name in (("good", "b  of two"), ("ok", "c"), ("junk", "d")):
        path = dataset / "lab" / f"q_1_{label}.txt"
        path.write_bytes(f"{blank}{name}{end}{blank}".encode())
    program = tmp_path / "compute_ap"
    program.write_text(SCORER.format(python=sys.executable))
    program.chmod(0o755)
    status, out, err = measure("--eval-binary", program)
    assert status == 0, err
    assert out == measure()[1]
    assert "q_1: 0.00" not in out


def test_main_checks_its_arguments_as_the_command_line_does(dataset):
    for wrong in (
        {"pooling": "sum"},
        {"backbone": "vgg"},
        {"precision": "int8"},
        {"S": 0},
        {"L": 1.5},
        {"qe": -1},
        {"batch_size": np.int64(4)},
    ):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Measure_OxfordParis.main(str(dataset), **wrong)


def test_main_takes_paths_as_text_and_saves_the_settings_used(dataset, tmp_path):
    results = Measure_OxfordParis.main(
        "Tiny",
        datasets_dir=str(dataset.parent),
        weights_dir=str(tmp_path),
        backbone="efficientnet_lite0",
        pooling="rmac",
        whiten=False,
        S=64,
        device="cpu",
        output=str(tmp_path / "out"),
    )
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["AP"] == results["AP"]
    settings = written["settings"]
    assert (settings["device"], settings["batch_size"]) == ("cpu", 1)
    assert settings["workers"] == (os.cpu_count() or 1) // 8


def test_an_image_that_shows_nothing_is_noted(measure, dataset, tmp_path, caplog, monkeypatch):
    forward = RetrievalNetwork.forward

    def blind(self, images):
        return forward(self, images) * (images.shape[-1] != 7)

    monkeypatch.setattr(RetrievalNetwork, "forward", blind)
    write_query(dataset, "q_2", "a 0 0 7 7", good="b")
    status, out, _ = measure("--output", tmp_path / "out")
    assert status == 0
    assert re.search(r"the descriptors of 1 queries \(first: .*a\.png\) are zero", caplog.text)
    # All images are equally similar to it, so they are ranked in the database's order: a, b, c, d.
    assert score_lines(out)[1] == "q_2: 25.00"
    assert (tmp_path / "out" / "rankings" / "q_2.rnk").read_text().split() == list("abcd")


def test_the_embedded_backbone_comes_with_its_attention_and_whitening(measure, dataset, tmp_path):
    network = ["--backbone", "efficientnet_lite0", "--device", "cpu", "--weights-dir", ROOT / "weights"]
    status, _, err = measure("--output", tmp_path / "out", network=network)
    assert status == 0, err
    descriptors = np.load(tmp_path / "out" / "descriptors.npz")["descriptors"]
    assert descriptors.shape == (4, 512)
    # With equal weights, descriptors have other values; without whitening, another width.
    for options, width in ((["--pooling", "rmac"], 512), (["--no-whiten"], 1280)):
        measure("--output", tmp_path / "other", network=[*network, *options])
        other = np.load(tmp_path / "other" / "descriptors.npz")["descriptors"]
        assert other.shape == (4, width)
        assert width != 512 or np.abs(descriptors - other).max() > 1e-3


def test_the_shipped_whitening_gives_unit_variance_on_its_training_data():
    """Each component is an orthogonal direction divided by the standard deviation along it."""
    folder = ROOT / "weights" / "efficientnet_lite0"
    components = np.load(folder / "pca_components.npy").astype(np.float64)
    variances = json.loads((folder / "pca.json").read_text())["explained_variance"]
    lengths = np.linalg.norm(components, axis=1)
    np.testing.assert_allclose(lengths, 1 / np.sqrt(variances[: len(components)]), rtol=1e-5)
    gram = components @ components.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(gram, np.eye(len(components)), atol=1e-5)
    assert (folder / "pca_components.npy").stat().st_size < 3_000_000


@pytest.mark.slow
def test_two_processes_describe_what_one_does(measure, dataset, tmp_path):
    (dataset / "jpg" / "broken.png").write_bytes(b"")
    _, out, _ = measure("--skip-bad-images", "--output", tmp_path / "one")
    done = subprocess.run(
        [*TWO_PROCESSES, *evaluation(dataset, "--skip-bad-images", "--output", tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == out
    assert_same_descriptors(tmp_path / "one", tmp_path / "two", names="abcd")
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["images_left_out"] == [str(dataset / "jpg" / "broken.png")]


@pytest.mark.slow
def test_a_process_that_fails_ends_all_of_them(dataset):
    (dataset / "jpg" / "broken.png").write_bytes(b"")
    done = subprocess.run([*TWO_PROCESSES, *evaluation(dataset)], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "error: " in done.stderr
    assert "broken.png cannot be decoded" in done.stderr


WAITS_FOR_PIPES = """
import sys

sys.path.insert(0, {root!r})
import Measure_OxfordParis
from utils.images import batches as size_batches

load = size_batches.load_pixels


def load_after_the_pipe(image, longer_side):
    pipe = image.path.parents[1] / (image.path.stem + ".pipe")
    if pipe.exists():
        pipe.read_bytes()
    return load(image, longer_side)


size_batches.load_pixels = load_after_the_pipe
Measure_OxfordParis.command_line()
"""
"""An evaluation that reads, before each image, the named pipe beside jpg/ with its name, if any."""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir() or not list(Path("/proc/self/task").glob("*/children")),
    reason="the processes of torchrun are found by Linux's /proc",
)
def test_a_process_that_is_killed_ends_all_of_them(dataset, tmp_path):
    # The second process has b, d and f of a, b, c, d, e, f. Before d and f it opens a named pipe to read, and
    # waits for a writer. At d, the test learns that the process got there; at f, the process waits.
    for name in "df":
        os.mkfifo(dataset / f"{name}.pipe")
        draw_image(dataset / "jpg" / f"{name}.png")
    draw_image(dataset / "jpg" / "e.png")
    program = tmp_path / "program.py"
    program.write_text(WAITS_FOR_PIPES.format(root=str(ROOT)))
    _, *words = evaluation(dataset, "--skip-bad-images", "--output", tmp_path / "out")
    launcher = subprocess.Popen(
        [*TWO_PROCESSES, program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_reader(dataset / "d.pipe", launcher)
        second = next(process for process in children(launcher.pid) if is_rank(process, 1))
        os.kill(second, signal.SIGKILL)
        out, err = launcher.communicate(timeout=60)
    finally:
        launcher.terminate()  # if the test failed earlier; ends its processes, too
        launcher.wait()
    assert launcher.returncode == 1
    assert out == ""
    assert f"Signal 9 (SIGKILL) received by PID {second}" in err
    assert not list((tmp_path / "out").glob("*"))


def wait_for_reader(pipe, process, seconds=120):
    """Wait until a named pipe has been opened for reading, or fail when the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            return
        except OSError as error:
            assert error.errno == errno.ENXIO  # no reader yet
            time.sleep(0.05)
    pytest.fail(f"{pipe} has no reader")


def children(process):
    """Return the ids of the running child processes of a process."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def is_rank(process, rank):
    return f"RANK={rank}".encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")


def test_scales_are_an_option(measure, tmp_path):
    measure("--output", tmp_path / "one")
    status, _, err = measure("--output", tmp_path / "three", "--scales", "0.7071,1,1.4142")
    assert status == 0, err
    one, three = (np.load(tmp_path / name / "descriptors.npz")["descriptors"] for name in ("one", "three"))
    assert 0.3 < (one * three).sum(axis=1).min() < 0.999
    assert "'0' is not a number greater than 0, 16 at most" in error_line(measure("--scales", "1,0"))
