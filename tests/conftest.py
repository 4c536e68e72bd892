import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FAST_INDEX
from PIL import Image

import Measure_OxfordParis
import Search_Images
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


CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def pytest_configure(config):
    """Let the tests and their processes remember digests in a temporary folder, not in the user's."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ.setdefault("TORCH_HOME", str(CACHES / "torch"))
    os.environ.setdefault("MPLCONFIGDIR", str(CACHES / "matplotlib"))
    os.environ["XDG_CACHE_HOME"] = folder.name
    if getattr(config.option, "numprocesses", None):  # processes of pytest-xdist, which share the cores
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-seconds", type=int, default=0, help="run the long fuzz tests for this many seconds"
    )


def pytest_collection_modifyitems(config, items):
    """Select the long fuzz tests if --fuzz-seconds is given, else all other tests."""
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
    """Return (H, W) of each input of a golden file, from the names of its arrays that end in a key."""
    return [
        tuple(map(int, array_name.split("/")[0].split("x")))
        for array_name in golden_arrays(name)
        if array_name.endswith(key)
    ]


def authors_head_file():
    return SHARED / "data" / "weights" / "ContextAwareRegionalAttention_weights.pth"


def recipe_state_dict(module, seed):
    from recipe import fill_state_dict

    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return {name: torch.from_numpy(np.array(array)) for name, array in fill_state_dict(shapes, seed).items()}


def draw_image(path, seed=0, size=(64, 48)):
    """Write an image of random squares to a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)


def draw_images(folder, names, size=(64, 48), first_seed=0):
    """Write different images to a folder and the folders below it, which are created."""
    for seed, name in enumerate(names, start=first_seed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_image(folder / name, seed, size)


@pytest.fixture
def dataset(tmp_path):
    """A data set of images a, b, c, d and one query, the upper left of a, with b good, c ok and d junk."""
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
    """Return the script and options of the evaluation of a tiny data set, for Python or torchrun."""
    words = ["--dataset", dataset, "--S", "64", "--workers", "0", *EMBEDDED, *options]
    return [ROOT / "Measure_OxfordParis.py", *words]


def assert_same_descriptors(one, two, names):
    """Check that two outputs have the same descriptors of named images and of queries, up to rounding."""
    with np.load(one / "descriptors.npz") as first, np.load(two / "descriptors.npz") as second:
        assert first["names"].tolist() == second["names"].tolist() == list(names)
        for key in ("descriptors", "query_descriptors"):
            np.testing.assert_allclose(first[key], second[key], rtol=0, atol=1e-6)


@pytest.fixture
def measure(dataset, tmp_path, capsys):
    """A function that evaluates the tiny data set in this process and returns status, output and errors."""

    def run(*options, network=EMBEDDED):
        words = ["--datasets-dir", tmp_path / "data", "--weights-dir", tmp_path / "weights", "--workers", "0"]
        words += ["--dataset", "Tiny", "--S", "64", *network, *options]
        status = run_command(lambda: Measure_OxfordParis.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """A function that runs Search_Images.py in this process and returns status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        status = run_command(lambda: Search_Images.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def indexed(command, images):
    """The folder `images` of the test's module, once the command line has indexed it."""
    assert command("index", images, *FAST_INDEX)[0] == 0
    return images


def run_on_small_disk(folder, size, command, then="true"):
    """Run a command while a disk is mounted at a folder, or skip the test where mounting is not possible.

    Args:
        folder: where the disk is mounted.
        size: of the disk, such as 64k.
        command: program and arguments.
        then: a shell command that runs on the disk afterwards; its output follows that of the command.
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
