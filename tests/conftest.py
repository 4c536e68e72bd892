import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import Measure_OxfordParis
from utils.program.run_command import run_command

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"

EMBEDDED = ["--backbone", "efficientnet_lite0", "--pooling", "rmac", "--no-whiten", "--device", "cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO_PROCESSES = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]

sys.path.insert(0, str(GOLDEN))

needs_photographs = pytest.mark.skipif(
    not (SHARED / "data" / "datasets").is_dir(), reason="the photographs are not beside the project"
)
needs_authors_head = pytest.mark.skipif(
    not (SHARED / "data" / "weights").is_dir(),
    reason="the authors' attention weights are not beside the project",
)


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-seconds", type=int, default=0, help="run the long form of the fuzz tests for so long"
    )


def pytest_collection_modifyitems(config, items):
    """Leave out the long fuzz tests, or all but them if they are asked for."""
    wants_long = config.getoption("--fuzz-seconds") > 0
    kept = [item for item in items if (item.get_closest_marker("long_fuzz") is not None) == wants_long]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def golden_arrays(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def golden_json(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def golden_inputs(name, key):
    """(H, W) of each golden entry that has an array of this key."""
    return [
        tuple(map(int, entry.split("/")[0].split("x")))
        for entry in golden_arrays(name)
        if entry.endswith(key)
    ]


def authors_head_file():
    return SHARED / "data" / "weights" / "ContextAwareRegionalAttention_weights.pth"


def recipe_state_dict(module, seed):
    from recipe import fill_state_dict

    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return {name: torch.from_numpy(np.array(array)) for name, array in fill_state_dict(shapes, seed).items()}


def draw_image(path, seed=0, size=(64, 48)):
    """An image of random squares, in an image file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)


@pytest.fixture
def dataset(tmp_path):
    """Four images a, b, c, d and one query, a's upper left, for which b is good, c ok and d junk."""
    folder = tmp_path / "data" / "Tiny"
    (folder / "jpg").mkdir(parents=True)
    (folder / "lab").mkdir()
    for seed, name in enumerate("abcd"):
        draw_image(folder / "jpg" / f"{name}.png", seed)
    write_query(folder, "q_1", "a 0 0 40 40", good="b", ok="c", junk="d")
    return folder


def write_query(folder, name, text, good="", ok="", junk=""):
    (folder / "lab" / f"{name}_query.txt").write_text(text + "\n")
    for label, names in (("good", good), ("ok", ok), ("junk", junk)):
        (folder / "lab" / f"{name}_{label}.txt").write_text("".join(f"{item}\n" for item in names.split()))


def evaluation(dataset, *options):
    """The evaluation of a tiny data set as a program: what Python or torchrun is to run."""
    words = ["--dataset", dataset, "--S", "64", "--workers", "0", *EMBEDDED, *options]
    return [ROOT / "Measure_OxfordParis.py", *words]


def assert_same_descriptors(one, two, names):
    """Two outputs describe the images of these names, and the queries, alike up to rounding."""
    with np.load(one / "descriptors.npz") as first, np.load(two / "descriptors.npz") as second:
        assert first["names"].tolist() == second["names"].tolist() == list(names)
        for key in ("descriptors", "query_descriptors"):
            np.testing.assert_allclose(first[key], second[key], rtol=0, atol=1e-6)


@pytest.fixture
def measure(dataset, tmp_path, capsys):
    """Runs the command line on the tiny data set in this process: status, standard output, standard error."""

    def run(*options, network=EMBEDDED):
        words = ["--datasets-dir", tmp_path / "data", "--weights-dir", tmp_path / "weights", "--workers", "0"]
        words += ["--dataset", "Tiny", "--S", "64", *network, *options]
        status = run_command(lambda: Measure_OxfordParis.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return run


def run_on_small_disk(folder, size, command, then="true"):
    """Runs a command while a disk of this size, such as 64k, is mounted at a folder; skips where it cannot.

    `then` is a shell command that runs on the disk after it; its output follows the command's.
    """
    if shutil.which("unshare") is None:
        pytest.skip("no disk can be mounted here")
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0"'
    probe = subprocess.run(["unshare", "-m", "sh", "-c", mount, str(folder)], capture_output=True)
    if probe.returncode:
        pytest.skip("no disk can be mounted here")
    script = f'{mount} && "$@"; status=$?; cd "$0"; {then}; exit $status'
    words = ["unshare", "-m", "sh", "-c", script, str(folder), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
