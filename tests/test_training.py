import copy
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image, run_on_small_disk
from filelock import FileLock
from helpers import run_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import Training_ImageNet
from models.backbones.registry import BACKBONES
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.region_pooling import cell_grid, region_max
from utils.data.imagenet import read_wnids
from utils.errors import UserError
from utils.options.parser import parse_options
from utils.options.shared import BackboneOptions
from utils.processes import Processes
from utils.program.run_command import run_command
from utils.training import report as training_report
from utils.training.crops import CropSettings, centre_crop
from utils.training.state import Progress, load_state, save_state
from utils.weights.networks import load_backbone, load_classifier

ROOT = Path(__file__).parents[1]
COMMON = [
    *("--backbone", "efficientnet_lite0", "--crop", "64", "--resize", "68", "72", "--device", "cpu"),
    *("--workers", "0", "--lr", "0.1", "--iterations", "10", "--checkpoint-every", "4"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of four classes of eight images, and six validation images."""
    folder = tmp_path_factory.mktemp("data")
    wnids = read_wnids()[:4]
    for index, wnid in enumerate(wnids):
        (folder / "ImageNet" / "train" / "data" / wnid).mkdir(parents=True)
        for number in range(8):
            draw_image(folder / "ImageNet" / "train" / "data" / wnid / f"{number}.JPEG", 10 * index + number)
    (folder / "ImageNet" / "val" / "data").mkdir(parents=True)
    for number in range(6):
        draw_image(folder / "ImageNet" / "val" / "data" / f"{number}.JPEG", 100 + number)
    lines = "".join(f"{number}.JPEG {number % 4}\n" for number in range(6))
    (folder / "ImageNet" / "val" / "val.txt").write_text(lines)
    return folder


@pytest.fixture
def train(data, capsys):
    """A function that runs the command line in this process and returns status, reports and errors."""

    def run(output, *options):
        return run_training(capsys, [*COMMON, "--datasets-dir", data, "--output", output, *options])

    return run


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The output of ten steps without interruption."""
    output = tmp_path_factory.mktemp("undisturbed")
    words = [*COMMON, "--datasets-dir", str(data), "--output", str(output)]
    assert run_command(lambda: Training_ImageNet.command_line(words)) == 0
    return output


def command(data, output, *options):
    script = [
        str(ROOT / "Training_ImageNet.py"),
        *COMMON,
        "--datasets-dir",
        str(data),
        "--output",
        str(output),
    ]
    return [*script, *options]


def weights(output):
    """Return the tensors of the head that the last report saved."""
    last = max(output.glob("ContextAware*.pth"), key=lambda path: int(path.stem.split("_")[-2]))
    return torch.load(last, weights_only=True)


def assert_same_weights(output, other):
    for name, tensor in weights(output).items():
        assert tensor.equal(weights(other)[name]), name


def reports(output):
    return [json.loads(line) for line in (output / "training.jsonl").read_text().splitlines()]


def test_reports_every_so_often_and_at_the_end(undisturbed):
    assert [report["step"] for report in reports(undisturbed)] == [4, 8, 10]
    names = sorted(path.name for path in undisturbed.iterdir() if path.name != "tensorboard")
    expected = [
        f"ContextAwareRegionalAttention_weights_{report['report']}_{report['val_accuracy']:.4f}.pth"
        for report in reports(undisturbed)
    ]
    assert names == [
        *expected,
        "efficientnet_lite0",
        "training.json",
        "training.jsonl",
        "training.png",
        "training_state.pth",
    ]
    assert {name: tuple(tensor.shape) for name, tensor in weights(undisturbed).items()} == {
        "conv_att_1.weight": (64, 2560, 1),
        "conv_att_1.bias": (64,),
        "conv_att_2.weight": (1, 64, 1),
        "conv_att_2.bias": (1,),
    }


def test_the_saved_options_of_a_training_repeat_it(data, undisturbed, tmp_path, train):
    def options(*words):
        return parse_options(Training_ImageNet.TrainingOptions, "Train.", list(map(str, words)))

    original = options(*COMMON, "--datasets-dir", data, "--output", undisturbed)
    config = undisturbed / "training.json"
    assert options("--config", config) == original
    status, _, err = train(tmp_path / "again", "--config", config)
    assert status == 0, err
    assert_same_weights(undisturbed, tmp_path / "again")
    train(tmp_path / "again", "--resume", "--iterations", "11")  # the saved options repeat it
    repeated = options("--config", tmp_path / "again" / "training.json")
    assert repeated == dataclasses.replace(original, output=tmp_path / "again", iterations=11)


def test_two_trainings_do_not_make_one_file_of_features(data, tmp_path, train):
    features = tmp_path / "new" / "features.npy"
    features.parent.mkdir()
    with FileLock(features.parent / "features.npy.lock"):
        status, _, err = train(tmp_path / "out", "--precompute", features)
    assert (status, err) == (2, f"error: another process is writing to {features}: wait for it\n")
    features.parent.joinpath("features.npy.lock").unlink()
    assert train(tmp_path / "out", "--precompute", features)[0] == 0
    assert sorted(path.name for path in features.parent.iterdir()) == ["features.npy", "features.npy.json"]
    with FileLock(features.parent / "features.npy.lock"):  # complete features are only read
        assert train(tmp_path / "other", "--precompute", features)[0] == 0


def test_an_update_is_sgds_with_the_mean_gradient_of_sixteen_images(data, tmp_path, train):
    """Four mini-batches of four images and one of sixteen have the same images, and give the same update."""
    train(tmp_path / "four", "--iterations", "4")
    train(tmp_path / "sixteen", "--iterations", "1", "--batch-size", "16", "--accumulate", "1")
    for name, tensor in weights(tmp_path / "four").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "sixteen")[name], rtol=1e-4, atol=1e-6)
    torch.manual_seed(0)
    start = Training_ImageNet.ContextAwareRegionalAttention(1280).state_dict()
    assert not weights(tmp_path / "four")["conv_att_1.weight"].equal(start["conv_att_1.weight"])


def test_the_same_seed_trains_the_same_weights_with_any_workers(undisturbed, tmp_path, train):
    train(tmp_path / "again", "--workers", "2")
    assert_same_weights(tmp_path / "again", undisturbed)
    assert reports(tmp_path / "again") == reports(undisturbed)
    train(tmp_path / "other", "--seed", "1")
    assert not weights(tmp_path / "other")["conv_att_1.weight"].equal(
        weights(undisturbed)["conv_att_1.weight"]
    )


def test_the_layout_of_pytorchs_examples_trains_the_same_weights(data, undisturbed, tmp_path, capsys):
    shutil.copytree(data / "ImageNet" / "train" / "data", tmp_path / "images" / "train")
    for number in range(6):
        folder = tmp_path / "images" / "val" / read_wnids()[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / "ImageNet" / "val" / "data" / f"{number}.JPEG", folder)
    words = [*COMMON, "--imagenet", tmp_path / "images", "--output", tmp_path / "out"]
    status, results, err = run_training(capsys, words)
    assert status == 0, err
    assert_same_weights(tmp_path / "out", undisturbed)
    assert [report["val_accuracy"] for report in results] == [
        report["val_accuracy"] for report in reports(undisturbed)
    ]


def test_validation_is_of_the_middles_of_the_images(data, undisturbed):
    spec = BACKBONES["efficientnet_lite0"]
    backbone = load_backbone(spec, None)
    weight, bias, _ = load_classifier(BackboneOptions(backbone="efficientnet_lite0"))
    files = [data / "ImageNet" / "val" / "data" / f"{number}.JPEG" for number in range(6)]
    settings = CropSettings(64, 68, 72, "nearest")
    pixels = torch.from_numpy(np.stack([centre_crop(path, settings) for path in files]))
    classes = torch.arange(6) % 4
    with torch.inference_mode():
        maxima = region_max(backbone(spec.preprocessing()(pixels)), cell_grid((64, 64), (2, 2), 5, 32))
        scores = maxima.mean(1) @ weight.T + bias
    log_probabilities = scores.double().log_softmax(1)[torch.arange(6), classes]
    for report in reports(undisturbed):
        assert report["val_loss_uniform"] == pytest.approx(float(-log_probabilities.mean()), rel=1e-4)
        assert report["val_accuracy_uniform"] == float((scores.argmax(1) == classes).double().mean())
        assert report["val_loss"] != report["val_loss_uniform"]


@pytest.mark.slow
def test_learns_what_it_sees(tmp_path, train):
    _, results, _ = train(tmp_path / "out", "--iterations", "60", "--checkpoint-every", "20", "--lr", "1")
    assert results[-1]["loss"] < results[0]["loss"]


@pytest.mark.parametrize("steps", [3, 4, 9])
def test_a_training_in_two_parts_is_one_in_one(undisturbed, tmp_path, train, monkeypatch, steps):
    """Ctrl-C saves the state at any step, also between the mini-batches of an update."""
    learn = Training_ImageNet.train_step

    def learn_and_interrupt(model, batch, progress, images):
        learn(model, batch, progress, images)
        if progress.step == steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Training_ImageNet, "train_step", learn_and_interrupt)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path / "out")
    assert stopped.value.code == 130
    monkeypatch.undo()
    status, _, err = train(tmp_path / "out", "--resume")
    assert status == 0, err
    assert_same_weights(tmp_path / "out", undisturbed)
    assert reports(tmp_path / "out") == reports(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "send", "workers"),
    [
        (signal.SIGKILL, os.kill, 0),
        (signal.SIGTERM, os.kill, 0),
        (signal.SIGTERM, os.killpg, 2),  # workers get the signal, too
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    data, undisturbed, tmp_path, train, sent, send, workers
):
    output = tmp_path / "out"
    words = command(data, output, "--iterations", "100000", "--workers", str(workers))
    process = subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("*_1_*.pth")) and time.monotonic() < deadline:
        time.sleep(0.05)
    send(process.pid, sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-sent if sent == signal.SIGKILL else 128 + sent), err
    assert "Traceback" not in err
    reached = (
        torch.load(output / "training_state.pth", weights_only=True)["progress"]["step"]
        if (output / "training_state.pth").exists()
        else 0
    )
    end = max(12, reached + 2)
    status, _, err = train(output, "--iterations", end, *(["--resume"] if reached else []))
    assert status == 0, err
    train(tmp_path / "unbroken", "--iterations", end)
    assert_same_weights(output, tmp_path / "unbroken")


@pytest.mark.slow
def test_two_processes_train_what_one_does(data, undisturbed, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *command(data, tmp_path / "out")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == reports(tmp_path / "out")
    for one, two in zip(reports(undisturbed), reports(tmp_path / "out"), strict=True):
        for key, value in one.items():
            assert two[key] == (pytest.approx(value, abs=1e-4) if "loss" in key else value)
        assert two.keys() == one.keys()
    for name, tensor in weights(undisturbed).items():
        torch.testing.assert_close(tensor, weights(tmp_path / "out")[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_precomputed_features_are_made_once_and_resumed(data, tmp_path, train, monkeypatch):
    from utils.training import precomputed_features

    monkeypatch.setattr(precomputed_features, "SAVED_EVERY", 5)
    store = tmp_path / "features.npy"
    status, results, err = train(tmp_path / "unbroken", "--precompute", store)
    assert status == 0, err
    rows = np.load(store)
    assert rows.shape == (32 + 6, 2 * 55 + 1, 1280)
    assert rows.dtype == np.float16
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features.npy",
        "features.npy.json",
        "unbroken",
    ]

    # Interrupted after some images, it keeps their features and computes the missing ones.
    part = tmp_path / "part.npy"
    from utils.training import batches as training_batches

    extract, calls = training_batches.region_features, []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return extract(*arguments)

    monkeypatch.setattr(training_batches, "region_features", counted)
    assert train(tmp_path / "part", "--precompute", part)[0] == 130
    assert not part.exists()
    assert train(tmp_path / "part", "--precompute", part)[0] == 0
    assert len(calls) == 12 + 38 - 10
    np.testing.assert_array_equal(np.load(part), rows)
    assert_same_weights(tmp_path / "part", tmp_path / "unbroken")

    # Complete features are not computed again, and are refused for another crop.
    calls.clear()
    assert train(tmp_path / "again", "--precompute", store)[1] == results
    assert calls == []
    status, _, err = train(tmp_path / "crop", "--precompute", store, "--crop", "60")
    assert status == 2
    assert "made with other settings (crop)" in err


def test_an_epoch_has_each_image_once(tmp_path):
    from utils.training.batches import _draw_index

    indices = np.array([3, 5, 8, 9, 11])
    drawn = [_draw_index(indices, number, 0) for number in range(15)]
    for epoch in range(3):
        assert sorted(drawn[5 * epoch : 5 * epoch + 5]) == indices.tolist()
    assert drawn[:5] != drawn[5:10] or drawn[5:10] != drawn[10:]


def test_resuming_with_other_settings_is_refused_by_name(undisturbed, tmp_path, train):
    status, _, err = train(undisturbed, "--resume", "--lr", "0.5", "--momentum", "0.5")
    assert status == 2
    assert "lr 0.1 (now 0.5), momentum 0.9 (now 0.5)" in err
    assert "--resume, or another --output" in train(undisturbed)[2]
    assert "nothing to resume" in train(tmp_path / "empty", "--resume")[2]
    assert not (tmp_path / "empty").exists() or not list((tmp_path / "empty").iterdir())


def test_an_unreadable_state_is_reported(undisturbed, tmp_path, train):
    (tmp_path / "training_state.pth").write_bytes((undisturbed / "training_state.pth").read_bytes()[:1000])
    status, _, err = train(tmp_path, "--resume")
    assert status == 2
    assert "training_state.pth cannot be read" in err


def in_state(*keys, value):
    """Return a function that sets a value of a saved state, or deletes it if the value is `del`."""

    def change(state):
        for key in keys[:-1]:
            state = state[key]
        if value == "del":
            del state[keys[-1]]
        else:
            state[keys[-1]] = value

    return change


WEIGHT = "conv_att_2.weight"
BUFFER = ("optimizer", "state", 0, "momentum_buffer")

STATE_CHANGES = {
    "no head": in_state("head", value="del"),
    "no optimizer": in_state("optimizer", value="del"),
    "no gradients": in_state("gradients", value="del"),
    "no progress": in_state("progress", value="del"),
    "no settings": in_state("settings", value="del"),
    "format as text": in_state("format", value="2"),
    "format of the future": in_state("format", value=3),
    "head without a tensor": in_state("head", WEIGHT, value="del"),
    "head with a further tensor": in_state("head", "more", value=torch.zeros(1)),
    "head of another shape": in_state("head", WEIGHT, value=torch.zeros(1)),
    "head of nan": lambda state: state["head"][WEIGHT].fill_(torch.nan),
    "head of numbers too large": in_state(
        "head", WEIGHT, value=torch.full((1, 64, 1), 1e39, dtype=torch.float64)
    ),
    "head of integers": lambda state: state["head"].update({WEIGHT: state["head"][WEIGHT].int()}),
    "head on meta": lambda state: state["head"].update({WEIGHT: state["head"][WEIGHT].to("meta")}),
    "head as text": in_state("head", WEIGHT, value="0"),
    "gradients of another shape": in_state("gradients", WEIGHT, value=torch.zeros(1)),
    "gradients of inf": lambda state: state["gradients"][WEIGHT].fill_(torch.inf),
    "one gradient alone": in_state("gradients", value={WEIGHT: torch.zeros(1)}),
    "optimizer as list": in_state("optimizer", value=[]),
    "optimizer without a parameter": in_state("optimizer", "state", 0, value="del"),
    "optimizer of another shape": in_state(*BUFFER, value=torch.zeros(1)),
    "optimizer of nan": lambda state: state["optimizer"]["state"][0]["momentum_buffer"].fill_(torch.nan),
    "optimizer of numbers": in_state(*BUFFER, value=0.5),
    "step as text": in_state("progress", "step", value="3"),
    "step as fraction": in_state("progress", "step", value=3.5),
    "step negative": in_state("progress", "step", value=-1),
    "step too large": in_state("progress", "step", value=10**400),
    "loss too large": in_state("progress", "loss", value=10**400),
    "loss of nan": in_state("progress", "loss", value=float("nan")),
    "reports of nothing": in_state("progress", "reports", value=[{}]),
    "unknown progress": in_state("progress", "more", value=1),
    "settings as list": in_state("settings", value=[]),
    "settings of tensors": in_state("settings", "lr", value=torch.zeros(2)),
}


def test_gradients_in_float64_are_taken_in_the_parameters_type(tmp_path):
    head = ContextAwareRegionalAttention(4)
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    processes = Processes(0, 1, torch.device("cpu"))
    for parameter in head.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    save_state(tmp_path, head, optimizer, Progress(step=3), {}, processes)
    state = torch.load(tmp_path / "training_state.pth", weights_only=True)
    state["gradients"] = {name: gradient.double() for name, gradient in state["gradients"].items()}
    torch.save(state, tmp_path / "training_state.pth")
    head.zero_grad()
    load_state(tmp_path, head, optimizer, {}, processes)
    assert all((parameter.grad == 0.5).all() for parameter in head.parameters())
    assert all(parameter.grad.dtype == torch.float32 for parameter in head.parameters())


@pytest.mark.parametrize("change", STATE_CHANGES.values(), ids=STATE_CHANGES.keys())
def test_an_invalid_state_changes_nothing_and_is_one_line_of_error(tmp_path, change):
    head = ContextAwareRegionalAttention(4)
    optimizer = torch.optim.SGD(head.parameters(), 0.1, 0.9)
    processes = Processes(0, 1, torch.device("cpu"))
    for parameter in head.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_state(tmp_path, head, optimizer, Progress(step=3), {"lr": 0.1}, processes)
    path = tmp_path / "training_state.pth"
    state = torch.load(path, weights_only=True)

    fresh = ContextAwareRegionalAttention(4)
    before = copy.deepcopy(fresh.state_dict())
    fresh_optimizer = torch.optim.SGD(fresh.parameters(), 0.1, 0.9)
    assert load_state(tmp_path, fresh, fresh_optimizer, {"lr": 0.1}, processes).step == 3
    assert fresh.state_dict()[WEIGHT].equal(head.state_dict()[WEIGHT])
    assert fresh_optimizer.state_dict()["state"][0]["momentum_buffer"].min() == 1

    fresh.load_state_dict(before)
    fresh_optimizer = torch.optim.SGD(fresh.parameters(), 0.1, 0.9)
    change(state)
    torch.save(state, path)
    with pytest.raises(UserError, match=rf"^{path} [^\n]*; start anew with another --output$"):
        load_state(tmp_path, fresh, fresh_optimizer, {"lr": 0.1}, processes)
    assert all(fresh.state_dict()[name].equal(value) for name, value in before.items())
    assert fresh_optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("state", [{"weight": torch.zeros(3)}, [1, 2], torch.zeros(3), nn.Linear(2, 2)])
def test_another_file_of_pytorch_is_no_state(tmp_path, state):
    torch.save(state, tmp_path / "training_state.pth")
    head = ContextAwareRegionalAttention(4)
    optimizer = torch.optim.SGD(head.parameters(), 0.1, 0.9)
    with pytest.raises(UserError, match=r"training_state\.pth .*; start anew with another --output$"):
        load_state(tmp_path, head, optimizer, {}, Processes(0, 1, torch.device("cpu")))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, train, monkeypatch):
    train(tmp_path / "out", "--iterations", "4")
    before = (tmp_path / "out" / "training_state.pth").read_bytes()
    monkeypatch.setattr(
        Training_ImageNet.F, "cross_entropy", lambda *arguments, **options: torch.tensor(float("nan"))
    )
    status, _, err = train(tmp_path / "out", "--resume")
    assert status == 2
    assert "the loss is not finite at step 5" in err
    assert (tmp_path / "out" / "training_state.pth").read_bytes() == before


def test_too_many_unreadable_images_stop_the_training(data, tmp_path, train):
    path = next(iter(sorted((data / "ImageNet" / "train" / "data").glob("*/*"))))
    content = path.read_bytes()
    try:
        path.write_bytes(b"")
        status, _, err = train(tmp_path / "out", "--iterations", "40")
    finally:
        path.write_bytes(content)
    assert status == 2
    assert "1 of 32 training images are unreadable, more than 1%" in err


@pytest.fixture
def with_pipes(data, monkeypatch):
    """The paths of a training and a validation image that are replaced by pipes."""
    monkeypatch.setattr(Training_ImageNet, "MOST_UNREADABLE", 0.1)
    replaced = [min((data / "ImageNet" / "train" / "data").glob("*/*")), data / "ImageNet/val/data/1.JPEG"]
    contents = [path.read_bytes() for path in replaced]
    for path in replaced:
        path.unlink()
        os.mkfifo(path)
    yield replaced
    for path, content in zip(replaced, contents, strict=True):
        path.unlink()
        path.write_bytes(content)


@pytest.mark.parametrize("options", [[], ["--precompute"]])
def test_pipes_among_the_images_are_named_and_left_out(with_pipes, tmp_path, train, caplog, options):
    options = [*options, tmp_path / "features.npy"] if options else []
    status, results, err = train(tmp_path / "out", "--iterations", "40", "--checkpoint-every", "40", *options)
    assert status == 0, err
    assert results[-1]["unreadable_images"] == 1
    assert results[-1]["val_images"] == 5
    assert f"left out {with_pipes[0]}, which cannot be decoded" in caplog.text
    assert "validated without 1 images that cannot be decoded" in caplog.text
    assert str(with_pipes[1]) in caplog.text


@pytest.mark.slow
def test_few_unreadable_images_are_counted_and_left_out(data, tmp_path, train, monkeypatch, caplog):
    monkeypatch.setattr(Training_ImageNet, "MOST_UNREADABLE", 0.1)
    path = next(iter(sorted((data / "ImageNet" / "train" / "data").glob("*/*"))))
    content = path.read_bytes()
    try:
        path.write_bytes(b"")
        status, results, _ = train(tmp_path / "out", "--iterations", "40")
    finally:
        path.write_bytes(content)
    assert status == 0
    assert results[-1]["unreadable_images"] == 1
    assert caplog.text.count("cannot be decoded") == 1


def test_invalid_options_and_data_are_reported(data, tmp_path, train):
    assert "must be a range of sides" in train(tmp_path / "out", "--crop", "70")[2]
    assert "'0' is not a number greater than 0" in train(tmp_path / "out", "--lr", "0")[2]
    assert "no training images" in train(tmp_path / "out", "--datasets-dir", tmp_path)[2]
    assert not (tmp_path / "out").exists()


def test_tensorboard_gets_the_reports(undisturbed):
    events = EventAccumulator(str(undisturbed / "tensorboard")).Reload()
    for name in ("loss", "val_accuracy", "val_accuracy_uniform"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(report["step"], pytest.approx(report[name])) for report in reports(undisturbed)]


def test_a_training_does_without_tensorboard(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        training_report.write_tensorboard(tmp_path, {"step": 1, "loss": 0.5})
    assert list(tmp_path.iterdir()) == []
    training_report.write_tensorboard(tmp_path, {"step": 1, "loss": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]


@pytest.mark.slow
def test_a_full_disk_is_one_line_that_names_the_file(data, tmp_path):
    words = [sys.executable, *command(data, tmp_path, "--iterations", "1")]
    done = run_on_small_disk(tmp_path, "100k", words, then="ls")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:") or "Traceback" in line]
    (error,) = errors
    assert error.startswith(f"error: cannot write {tmp_path}/ContextAwareRegionalAttention_weights_1_")
    assert error.endswith(".pth: the disk is full")
    # after the report, the files on the disk: one written at the start, and no incomplete file
    assert done.stdout.splitlines()[1:] == ["training.json"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])
def test_several_processes_go_on_between_two_updates(data, tmp_path, processes):
    """A training with an update every four steps that is resumed after step 14 equals one without a stop."""

    def run(output, *options):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc-per-node", str(processes)]
        done = subprocess.run(
            [*launch, *command(data, output, "--accumulate", "4", "--checkpoint-every", "100", *options)],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr

    run(tmp_path / "unbroken", "--iterations", "20")
    run(tmp_path / "parts", "--iterations", "14")
    run(tmp_path / "parts", "--iterations", "20", "--resume")
    for name, tensor in weights(tmp_path / "unbroken").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "parts")[name], rtol=0, atol=1e-7)


def test_a_state_with_the_gradient_of_one_process_is_refused(undisturbed, tmp_path, train):
    state = torch.load(undisturbed / "training_state.pth", weights_only=True)
    del state["format"]
    state["progress"]["corrupt"] = state["progress"].pop("unreadable")  # as that version wrote it
    torch.save(state, tmp_path / "training_state.pth")
    status, _, err = train(tmp_path, "--resume", "--iterations", "12")
    assert status == 2
    assert "another version of this program" in err
    state["gradients"] = {}
    torch.save(state, tmp_path / "training_state.pth")
    assert train(tmp_path, "--resume", "--iterations", "12")[0] == 0
