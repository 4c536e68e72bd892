"""Results of training and PCA: files for --weights-dir, and states bound to the backbone's weights."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image
from helpers import save_other_weights

import LearningPCA_landmark
import Measure_OxfordParis
import Search_Images
import Training_ImageNet
from utils.data.imagenet import read_wnids
from utils.program.run_command import run_command
from utils.training.best_head import BestHead
from utils.weights.network_record import Network, PartWriter

HEAD = "ContextAwareRegionalAttention_weights.pth"
BACKBONE = "efficientnet_lite0"
COMMON = ["--backbone", BACKBONE, "--device", "cpu", "--workers", "0"]
TRAINING = [
    "--crop",
    "64",
    "--resize",
    "68",
    "72",
    "--lr",
    "0.1",
    "--iterations",
    "8",
    "--checkpoint-every",
    "2",
]
PCA = ["--S", "128", "--L", "2", "--min-side", "64", "--components", "10"]
DIGEST = "f2fc9aaca381061d"
"""Digest of the layers of the embedded backbone, as its network.json has it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data sets of two classes of four images, four validation images, and six landmarks."""
    folder = tmp_path_factory.mktemp("data")
    for index, wnid in enumerate(read_wnids()[:2]):
        (folder / "ImageNet" / "train" / "data" / wnid).mkdir(parents=True)
        for number in range(4):
            draw_image(folder / "ImageNet" / "train" / "data" / wnid / f"{number}.JPEG", 10 * index + number)
    for part in ("ImageNet/val", "Landmark/train"):
        (folder / part / "data").mkdir(parents=True, exist_ok=True)
    for number in range(4):
        draw_image(folder / "ImageNet" / "val" / "data" / f"{number}.JPEG", 100 + number)
    (folder / "ImageNet" / "val" / "val.txt").write_text("".join(f"{n}.JPEG {n % 2}\n" for n in range(4)))
    for number in range(6):
        draw_image(folder / "Landmark" / "train" / "data" / f"{number}.png", number, (128, 96))
    return folder


@pytest.fixture
def run(data, capsys):
    """A function that runs a script in this process and returns status, output and errors."""

    def command(script, output, *options):
        words = [*COMMON, *(TRAINING if script is Training_ImageNet else PCA), "--datasets-dir", data]
        words += ["--output", output, *options]
        status = run_command(lambda: script.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory):
    return save_other_weights(tmp_path_factory.mktemp("weights") / "other.pth")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(output):
    return json.loads((output / BACKBONE / "network.json").read_text())


def numbered(output):
    """Return the path of the head of each report, by its number."""
    return {int(path.stem.split("_")[2]): path for path in output.glob(f"{Path(HEAD).stem}_*.pth")}


def best_head(output):
    network = Network("resnet101", 8, "0")
    return BestHead(output, PartWriter(output / "resnet101", network, "attention", {}))


def save_reports(output, losses):
    """Write a file for the head of each report, and return the reports."""
    reports = []
    for number, loss in enumerate(losses, start=1):
        (output / f"{Path(HEAD).stem}_{number}_0.2500.pth").write_text(f"head {number}")
        reports.append({"report": number, "val_loss": loss, "val_accuracy": 0.25})
    return reports


def test_the_best_head_has_the_lowest_validation_loss_of_all_reports(tmp_path):
    reports = save_reports(tmp_path, [3.0, 1.0, 2.0, 1.0, 0.5])
    for count, best in enumerate([1, 2, 2, 2, 5], start=1):
        best_head(tmp_path).write(reports[:count])
        assert (tmp_path / "resnet101" / HEAD).read_text() == f"head {best}"
        saved = json.loads((tmp_path / "resnet101" / "network.json").read_text())
        assert saved["attention"]["files"] == {HEAD: hashlib.sha256(f"head {best}".encode()).hexdigest()}


def test_a_head_of_another_training_is_kept_with_a_note(tmp_path, caplog):
    reports = save_reports(tmp_path, [2.0, 1.0])
    best_head(tmp_path).check()
    assert not caplog.text
    path = tmp_path / "resnet101" / HEAD
    path.parent.mkdir()
    path.write_text("precious")
    best_head(tmp_path).check()
    assert f"note: {path} is of another training and is kept" in caplog.text
    best_head(tmp_path).write(reports)
    assert path.read_text() == "precious"
    assert [file.name for file in path.parent.iterdir()] == [HEAD]


def test_a_best_head_that_was_deleted_since_stays_in_the_copy(tmp_path):
    reports = save_reports(tmp_path, [1.0, 2.0])
    best_head(tmp_path).write(reports[:1])
    (tmp_path / f"{Path(HEAD).stem}_1_0.2500.pth").unlink()
    best_head(tmp_path).write(reports)
    assert (tmp_path / "resnet101" / HEAD).read_text() == "head 1"


def test_a_training_leaves_its_best_head_for_the_other_scripts(run, tmp_path):
    status, out, err = run(Training_ImageNet, tmp_path, "--L", "3", "--activation", "softplus")
    assert status == 0, err
    reports = [json.loads(line) for line in out.splitlines()]
    assert len(reports) == len(numbered(tmp_path)) == 4
    best = min(reports, key=lambda report: report["val_loss"])["report"]
    folder = tmp_path / BACKBONE
    assert (folder / HEAD).read_bytes() == numbered(tmp_path)[best].read_bytes()
    saved = record(tmp_path)
    assert (saved["backbone"], saved["channels"], saved["backbone_digest"]) == (BACKBONE, 1280, DIGEST)
    attention = saved["attention"]
    assert (attention["S"], attention["L"], attention["activation"]) == (64, 3, "softplus")
    assert attention["files"] == {HEAD: sha256(folder / HEAD)}
    assert attention["classes"] == 1000
    assert attention["class_names"] == hashlib.sha256("\0".join(read_wnids()).encode()).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == [HEAD, "network.json"]


def test_a_pca_joins_the_record_of_the_head(run, tmp_path):
    assert run(Training_ImageNet, tmp_path, "--iterations", "2")[0] == 0
    attention = record(tmp_path)["attention"]
    status, _, err = run(LearningPCA_landmark, tmp_path)
    assert status == 0, err
    saved = record(tmp_path)
    assert saved["attention"] == attention
    whitening = saved["whitening"]
    assert (whitening["S"], whitening["L"], whitening["components"]) == (128, 2, 10)
    folder = tmp_path / BACKBONE
    assert whitening["files"] == {
        name: sha256(folder / name) for name in ("pca_components.npy", "pca_mean.npy")
    }


@pytest.mark.parametrize("script", [Training_ImageNet, LearningPCA_landmark])
def test_a_folder_of_other_weights_is_refused_before_any_work(
    run, tmp_path, other_weights, monkeypatch, script
):
    assert run(LearningPCA_landmark, tmp_path, "--backbone-weights", other_weights)[0] == 0
    for path in (tmp_path / BACKBONE).glob("pca*"):
        path.unlink()
    monkeypatch.setattr(LearningPCA_landmark, "network_outputs", None)
    monkeypatch.setattr(Training_ImageNet, "train_step", None)
    status, out, err = run(script, tmp_path)
    assert (status, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith(
        f"error: {tmp_path / BACKBONE / 'network.json'} is for backbone weights with digest "
    )
    assert line.endswith(f"but this run has backbone weights with digest {DIGEST}: name another --output")


@pytest.mark.parametrize("script", [Training_ImageNet, LearningPCA_landmark])
@pytest.mark.parametrize("first", [True, False])
def test_saved_work_is_resumed_with_the_same_weights_alone(run, tmp_path, other_weights, script, first):
    given = ["--backbone-weights", str(other_weights)]
    status, _, err = run(script, tmp_path, *(given if first else []))
    assert status == 0, err
    (tmp_path / BACKBONE / "network.json").unlink()  # it would be refused, too
    status, _, err = run(script, tmp_path, "--resume", *([] if first else given))
    assert status == 2
    assert "was saved with other settings: backbone_digest " in err.splitlines()[-1]
    assert ("(now None)" if first else "backbone_digest None (now") in err.splitlines()[-1]
    assert run(script, tmp_path, "--resume", *(given if first else []))[0] == 0


def test_a_weights_file_that_is_removed_during_the_job_is_not_read_again(
    run, tmp_path, other_weights, monkeypatch
):
    """The digest at the end of hours of work is that of the weights that did it."""
    weights = tmp_path / "weights.pth"
    weights.write_bytes(other_weights.read_bytes())
    compute = LearningPCA_landmark.network_outputs

    def remove_first(*arguments, **keywords):
        weights.unlink(missing_ok=True)
        return compute(*arguments, **keywords)

    monkeypatch.setattr(LearningPCA_landmark, "network_outputs", remove_first)
    status, _, err = run(LearningPCA_landmark, tmp_path, "--backbone-weights", weights)
    assert status == 0, err
    assert not weights.exists()
    settings = json.loads((tmp_path / BACKBONE / "pca.json").read_text())["settings"]
    assert settings["backbone_digest"] == record(tmp_path)["backbone_digest"] != DIGEST


def test_states_of_earlier_versions_are_resumed_with_the_published_weights(run, tmp_path, other_weights):
    assert run(Training_ImageNet, tmp_path, "--iterations", "2")[0] == 0
    assert run(LearningPCA_landmark, tmp_path)[0] == 0
    path = tmp_path / "training_state.pth"
    state = torch.load(path, weights_only=True)
    assert state["settings"].pop("backbone_digest", "missing") is None
    torch.save(state, path)
    path = tmp_path / BACKBONE / "pca_state.npz"
    with np.load(path) as saved:
        arrays = dict(saved)
    about = json.loads(str(arrays["about"]))
    assert about["settings"].pop("backbone_digest", "missing") is None
    np.savez(path, **(arrays | {"about": np.array(json.dumps(about))}))
    (tmp_path / BACKBONE / "network.json").unlink()
    status, out, err = run(Training_ImageNet, tmp_path, "--resume", "--iterations", "4")
    assert status == 0, err
    assert json.loads(out)["step"] == 4
    assert run(LearningPCA_landmark, tmp_path, "--resume", "--components", "3")[0] == 0
    assert record(tmp_path)["whitening"]["components"] == 3


def test_precomputed_features_are_of_the_same_weights(run, tmp_path, other_weights):
    features = tmp_path / "features.npy"
    assert run(Training_ImageNet, tmp_path / "one", "--precompute", features)[0] == 0
    given = ["--precompute", features, "--backbone-weights", other_weights]
    status, _, err = run(Training_ImageNet, tmp_path / "two", *given)
    assert (status, err.splitlines()[-1]) == (
        2,
        f"error: {features} was made with other settings (backbone_digest): remove it or name another file",
    )
    path = tmp_path / "features.npy.json"
    saved = json.loads(path.read_text())
    del saved["settings"]["backbone_digest"]  # as earlier versions wrote it
    path.write_text(json.dumps(saved))
    assert run(Training_ImageNet, tmp_path / "two", *given)[0] == 2
    assert run(Training_ImageNet, tmp_path / "three", "--precompute", features)[0] == 0


@pytest.mark.slow
def test_four_commands_train_evaluate_and_search(run, dataset, tmp_path, capsys):
    output = tmp_path / "mine"
    assert run(Training_ImageNet, output)[0] == 0
    assert run(LearningPCA_landmark, output)[0] == 0
    network = [*COMMON, "--S", "64", "--weights-dir", output]
    words = ["--dataset", "Tiny", "--datasets-dir", dataset.parent, *network]
    assert run_command(lambda: Measure_OxfordParis.command_line([str(word) for word in words])) == 0
    assert "Mean: " in capsys.readouterr().out
    words = ["index", dataset / "jpg", "--index", tmp_path / "index", *network]
    assert run_command(lambda: Search_Images.command_line([str(word) for word in words])) == 0
    (tmp_path / "mine" / BACKBONE).rename(tmp_path / "mine" / "efficientnet_lite2")
    words[words.index(tmp_path / "index")] = tmp_path / "new"
    assert (
        run_command(
            lambda: Search_Images.command_line([*map(str, words), "--backbone", "efficientnet_lite2"])
        )
        == 2
    )
    assert (
        f"is for backbone {BACKBONE}, but this run has backbone efficientnet_lite2" in capsys.readouterr().err
    )
