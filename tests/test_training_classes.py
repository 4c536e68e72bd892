"""Training on other classes than ImageNet's: a classifier first, and then the head."""

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
from conftest import SHARED, TWO_PROCESSES, draw_image, needs_photographs
from helpers import run_training
from sklearn.linear_model import LogisticRegression

import Training_ImageNet
from models.backbones.registry import BACKBONES, backbone_spec
from models.poolings.region_pooling import cell_grid, region_max
from utils.data.imagenet import read_wnids
from utils.program.run_command import run_command
from utils.training import classifier as stage_one
from utils.training.classifier import DECAY
from utils.training.crops import CropSettings, centre_crop
from utils.weights.networks import load_backbone

ROOT = Path(__file__).parents[1]
COMMON = [
    *("--backbone", "efficientnet_lite0", "--crop", "64", "--resize", "68", "72", "--device", "cpu"),
    *("--workers", "0", "--lr", "0.1", "--iterations", "6", "--checkpoint-every", "4"),
]


def draw_classes(folder, **counts):
    for index, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            draw_image(folder / label / f"{number}.png", 100 * index + number)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of two classes, of ten and five images."""
    return draw_classes(tmp_path_factory.mktemp("images"), **{"a cat": 10, "dog": 5})


def train_in_process(capsys, *options):
    return run_training(capsys, [*COMMON, *options])


@pytest.fixture
def train(images, capsys):
    """A function that runs the command line in this process and returns status, reports and errors."""

    def run(output, *options):
        return train_in_process(capsys, "--images", images, "--output", output, *options)

    return run


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """The output of both stages without interruption."""
    output = tmp_path_factory.mktemp("undisturbed")
    words = [*COMMON, "--images", str(images), "--output", str(output)]
    assert run_command(lambda: Training_ImageNet.command_line(words)) == 0
    return output


def newest_head(output):
    last = max(output.glob("ContextAware*.pth"), key=lambda path: int(path.stem.split("_")[-2]))
    return torch.load(last, weights_only=True)


def classifier_of(output):
    return torch.load(output / "classifier.pth", weights_only=True)


def assert_same_bits(output, other):
    for read in (newest_head, classifier_of):
        one, two = read(output), read(other)
        assert one.keys() == two.keys()
        assert all(tensor.equal(two[name]) for name, tensor in one.items())
    assert (output / "training.jsonl").read_bytes() == (other / "training.jsonl").read_bytes()
    assert (output / "classifier.json").read_bytes() == (other / "classifier.json").read_bytes()


def mean_maxima(paths):
    """Return the features of centre crops, computed step by step."""
    backbone = load_backbone(BACKBONES["efficientnet_lite0"], None)
    crops = np.stack([centre_crop(path, CropSettings(64, 68, 72, "nearest")) for path in paths])
    with torch.inference_mode():
        maps = backbone(BACKBONES["efficientnet_lite0"].preprocessing()(torch.from_numpy(crops)))
        return region_max(maps, cell_grid((64, 64), (2, 2), 5, 32)).mean(1).numpy()


def test_both_stages_write_their_files(undisturbed):
    reports = [json.loads(line) for line in (undisturbed / "training.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [4, 6]
    record = json.loads((undisturbed / "classifier.json").read_text())
    assert record["classes"] == ["a cat", "dog"]
    assert (record["train_images"], record["val_images"]) == (12, 3)
    assert (record["backbone"], record["split"]) == ("efficientnet_lite0", "seed 0, share 0.2")
    assert {name: tuple(tensor.shape) for name, tensor in classifier_of(undisturbed).items()} == {
        "fc.weight": (2, 1280),
        "fc.bias": (2,),
    }
    for report in reports:  # with uniform weights, the classifier gets the features that it was trained on
        assert report["val_loss_uniform"] == pytest.approx(record["val_loss"], rel=1e-4)
        assert report["val_accuracy_uniform"] == record["val_accuracy"]


def test_the_classifier_is_scikit_learns_for_the_mean_region_maxima(undisturbed, images):
    from utils.data.labelled_images import read_classified_images

    read = read_classified_images(images)
    features, held_out = mean_maxima(read.training.paths), mean_maxima(read.validation.paths)
    shifted = features - features.mean(0)
    scale = np.sqrt(np.square(shifted).sum(1).mean())
    # For two classes, scikit-learn has one weight vector, the difference of the two here: C is doubled.
    other = LogisticRegression(C=2 / (DECAY * len(features)), tol=1e-10, max_iter=10_000)
    other.fit(shifted / scale, read.training.classes)
    record = json.loads((undisturbed / "classifier.json").read_text())
    for name, rows, labels in (
        ("train", features, read.training.classes),
        ("val", held_out, read.validation.classes),
    ):
        probabilities = other.predict_proba((rows - features.mean(0)) / scale)
        assert record[f"{name}_accuracy"] == other.score((rows - features.mean(0)) / scale, labels)
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
        assert record[f"{name}_loss"] == pytest.approx(loss, rel=2e-3)


def interrupt(module, name, monkeypatch, calls):
    """Replace a function by one that sends Ctrl-C in one of its calls, and goes on."""
    function, count = getattr(module, name), 0

    def interrupting(*arguments, **options):
        nonlocal count
        count += 1
        if count == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, interrupting)


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [
        ("utils.training.batches", "region_features", 2),
        (stage_one, "fit_classifier", 1),
        (Training_ImageNet, "save_classifier", 1),
        (Training_ImageNet, "train_step", 1),
        (Training_ImageNet, "train_step", 5),
    ],
)
def test_a_training_interrupted_at_any_moment_goes_on_to_the_same_bits(
    undisturbed, tmp_path, train, monkeypatch, module, name, calls
):
    module = sys.modules[module] if isinstance(module, str) else module
    interrupt(module, name, monkeypatch, calls)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path / "out")
    assert stopped.value.code == 130
    monkeypatch.undo()
    assert "--resume, or another --output" in train(tmp_path / "out")[2]
    status, _, err = train(tmp_path / "out", "--resume")
    assert status == 0, err
    assert_same_bits(tmp_path / "out", undisturbed)


def test_features_that_are_there_are_not_computed_again(tmp_path, train, monkeypatch):
    from utils.training import batches

    interrupt(batches, "region_features", monkeypatch, 2)
    with pytest.raises(SystemExit):
        train(tmp_path / "out")
    monkeypatch.undo()
    computed, region_features = [], batches.region_features

    def counted(backbone, images, *arguments):
        computed.append(len(images))
        return region_features(backbone, images, *arguments)

    monkeypatch.setattr(batches, "region_features", counted)
    monkeypatch.setattr(stage_one, "fit_classifier", lambda *arguments: sys.exit(3))
    with pytest.raises(SystemExit):
        train(tmp_path / "out", "--resume")
    assert sum(computed) == 15 - 2 * 4


@pytest.mark.slow
@pytest.mark.parametrize("awaited", ["classifier_features/store.json", "classifier.pth", "training.jsonl"])
def test_a_killed_training_goes_on_to_the_same_bits(images, tmp_path, train, awaited):
    output = tmp_path / "out"
    words = [ROOT / "Training_ImageNet.py", *COMMON, "--images", images, "--output", output]
    process = subprocess.Popen([sys.executable, *map(str, words), "--iterations", "100000"])
    deadline = time.monotonic() + 120
    while not (output / awaited).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait(60)
    reached = torch.load(output / "training_state.pth", weights_only=True)["progress"]["step"]
    end = max(6, reached + 2)
    status, _, err = train(output, "--resume", "--iterations", end)
    assert status == 0, err
    train(tmp_path / "whole", "--iterations", end)
    assert_same_bits(output, tmp_path / "whole")


def test_the_same_seed_trains_the_same_bits_and_another_one_splits_differently(undisturbed, tmp_path, train):
    train(tmp_path / "again", "--workers", "2")
    assert_same_bits(tmp_path / "again", undisturbed)
    train(tmp_path / "other", "--seed", "1")
    assert not classifier_of(tmp_path / "other")["fc.weight"].equal(classifier_of(undisturbed)["fc.weight"])


def test_a_given_classifier_trains_the_same_head_without_the_first_stage(undisturbed, tmp_path, train):
    given = undisturbed / "classifier.pth"
    status, reports, err = train(tmp_path / "out", "--classifier", given)
    assert status == 0, err
    assert [report["step"] for report in reports] == [4, 6]
    assert all(
        tensor.equal(newest_head(undisturbed)[name]) for name, tensor in newest_head(tmp_path / "out").items()
    )
    assert not (tmp_path / "out" / "classifier.pth").exists()
    assert not (tmp_path / "out" / "classifier_features").exists()

    # The training goes on with this classifier alone.
    for name in ("classifier.pth", "classifier.json"):
        shutil.copy(undisturbed / name, tmp_path / name)
    options = ("--resume", "--iterations", "8", "--classifier", tmp_path / "classifier.pth")
    assert train(tmp_path / "out", *options)[0] == 0
    state = torch.load(given, weights_only=True)
    torch.save({name: 2 * tensor for name, tensor in state.items()}, tmp_path / "classifier.pth")
    assert (
        "was saved with another classifier than that of --classifier" in train(tmp_path / "out", *options)[2]
    )


def test_the_classes_of_a_classifier_may_be_more_and_in_another_order(
    undisturbed, images, tmp_path, train, capsys
):
    state = classifier_of(undisturbed)
    rows = torch.tensor([1, 1, 0])  # dog, bird, a cat
    moved = {name: tensor[rows] for name, tensor in state.items()}
    moved["fc.bias"][1] = -1e6
    torch.save(moved, tmp_path / "classifier.pth")
    record = json.loads((undisturbed / "classifier.json").read_text())
    record["classes"] = ["dog", "bird", "a cat"]
    (tmp_path / "classifier.json").write_text(json.dumps(record))
    status, reports, err = train(tmp_path / "out", "--classifier", tmp_path / "classifier.pth")
    assert status == 0, err
    assert reports[-1]["val_loss_uniform"] == pytest.approx(record["val_loss"], rel=1e-4)

    more = tmp_path / "more"
    shutil.copytree(images, more)
    shutil.copytree(images / "dog", more / "cow")
    given = ("--output", tmp_path / "no", "--classifier", tmp_path / "classifier.pth")
    status, _, err = train_in_process(capsys, "--images", more, *given)
    assert (status, err.count("\n")) == (2, 1)
    assert "has 1 labels that are not among the 3 classes" in err and "(first: cow)" in err
    (tmp_path / "classifier.json").unlink()
    status, _, err = train(tmp_path / "no", "--classifier", tmp_path / "classifier.pth")
    assert (status, err.count("\n")) == (2, 1)
    assert "has 3 classes without names" in err
    assert not (tmp_path / "no").exists()


def test_precomputed_features_train_both_stages_and_resume(tmp_path, train, monkeypatch):
    store = ("--precompute", tmp_path / "features.npy")
    status, reports, err = train(tmp_path / "whole", *store)
    assert status == 0, err
    assert [report.get("step") for report in reports] == [None, 4, 6]
    assert reports[1]["val_loss_uniform"] == pytest.approx(reports[0]["val_loss"], rel=1e-3)

    interrupt(sys.modules["utils.training.batches"], "region_features", monkeypatch, 3)
    part = ("--precompute", tmp_path / "part.npy")
    with pytest.raises(SystemExit):  # while the features are computed
        train(tmp_path / "part", *part)
    monkeypatch.undo()
    interrupt(stage_one, "fit_classifier", monkeypatch, 1)
    with pytest.raises(SystemExit):
        train(tmp_path / "part", *part, "--resume")
    monkeypatch.undo()
    assert train(tmp_path / "part", *part, "--resume")[0] == 0
    assert_same_bits(tmp_path / "part", tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_train_what_one_does(undisturbed, images, tmp_path):
    words = [ROOT / "Training_ImageNet.py", *COMMON, "--images", images, "--output", tmp_path]
    done = subprocess.run(
        [*TWO_PROCESSES, *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for read in (classifier_of, newest_head):
        for name, tensor in read(undisturbed).items():
            torch.testing.assert_close(read(tmp_path)[name], tensor, rtol=1e-4, atol=1e-5)
    first, *reports = [json.loads(line) for line in done.stdout.splitlines()]
    record = json.loads((undisturbed / "classifier.json").read_text())
    assert (first.pop("classes"), first.pop("split")) == (len(record["classes"]), record["split"])
    assert first == pytest.approx({name: record[name] for name in first}, abs=1e-4)
    expected = [json.loads(line) for line in (undisturbed / "training.jsonl").read_text().splitlines()]
    for one, two in zip(expected, reports, strict=True):
        assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_any_backbone_of_timm_trains_both_stages(name, images, tmp_path, capsys):
    """Weights without a classifier, with and without negative features."""
    pytest.importorskip("timm")
    torch.manual_seed(0)
    torch.save(
        {
            parameter.removeprefix("network."): tensor
            for parameter, tensor in backbone_spec(f"timm/{name}").features().state_dict().items()
        },
        tmp_path / "backbone.pth",
    )
    options = ["--backbone", f"timm/{name}", "--backbone-weights", tmp_path / "backbone.pth"]
    options += ["--images", images, "--output", tmp_path / "out"]
    status, reports, err = train_in_process(capsys, *options)
    assert status == 0, err
    assert reports[0]["train_accuracy"] == 1  # twelve images in 256 or more dimensions
    assert reports[-1]["step"] == 6
    other = ["--backbone", "efficientnet_lite0", "--classifier", tmp_path / "out" / "classifier.pth"]
    status, _, err = train_in_process(capsys, "--images", images, "--output", tmp_path / "no", *other)
    assert (status, err.count("\n")) == (2, 1)


def test_a_list_trains_what_its_folders_do(images, undisturbed, tmp_path, capsys):
    lines = [f"{path} {path.parent.name.removeprefix('a ')}\n" for path in images.glob("*/*")]
    (tmp_path / "list.txt").write_text("".join(lines))
    options = ["--images", tmp_path / "list.txt", "--output", tmp_path / "out"]
    status, _, err = train_in_process(capsys, *options)
    assert status == 0, err
    assert newest_head(tmp_path / "out")["conv_att_1.weight"].equal(
        newest_head(undisturbed)["conv_att_1.weight"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--validation-share", "0.5"], "--validation-share 0.5 has no effect without --images"),
        (["--validation", "x"], "--validation x has no effect without --images"),
        (["--classifier", "x"], "--classifier x has no effect without --images"),
        (["--classifier-steps", "5"], "--classifier-steps 5 has no effect without --images"),
        (["--images", "x", "--imagenet", "y"], "--imagenet y has no effect with --images"),
        (["--images", "x", "--datasets-dir", "y"], "--datasets-dir y has no effect with --images"),
        (["--images", "x", "--validation", "y", "--validation-share", "0.1"], "no effect with --validation"),
        (["--images", "x", "--classifier", "y", "--classifier-steps", "5"], "no effect with --classifier"),
        (["--images", "x", "--validation-share", "1"], "greater than 0, less than 1"),
        (["--images", "missing"], "missing is missing: name a folder"),
        (["--images", "folder"], "folder has one class, cat"),
        (["--images", "list.txt"], "list.txt, line 1: expected '<path> <label>', found 'cat.png'"),
        (["--images", "folder", "--validation", "missing"], "folder has one class"),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    draw_classes(tmp_path / "folder", cat=2)
    (tmp_path / "list.txt").write_text("cat.png\n")
    status, _, err = train_in_process(capsys, "--output", tmp_path / "out", *options)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: ") and message in err
    assert not (tmp_path / "out").exists()


def test_validation_images_of_unknown_classes_are_refused(images, tmp_path, train):
    draw_classes(tmp_path / "val", cow=1)
    status, _, err = train(tmp_path / "out", "--validation", tmp_path / "val")
    assert (status, err.count("\n")) == (2, 1)
    assert "has 1 labels that are not among the 2 classes" in err and "(first: cow)" in err


def test_unreadable_images_have_a_limit_in_the_first_stage(tmp_path, monkeypatch, caplog, capsys):
    folder = draw_classes(tmp_path / "images", cat=10, dog=10)
    for path in folder.glob("cat/*"):
        path.write_bytes(b"")
    options = ["--images", folder, "--output", tmp_path / "out"]
    status, _, err = train_in_process(capsys, *options)
    assert (status, err.count("error:")) == (2, 1)
    assert "8 of 16 training images are unreadable, more than 1%" in err
    monkeypatch.setattr(Training_ImageNet, "MOST_UNREADABLE", 0.5)
    status, reports, err = train_in_process(capsys, *options, "--resume")
    assert status == 0, err
    assert (reports[0]["train_images"], reports[0]["val_images"]) == (8, 2)
    assert reports[-1]["unreadable_images"] == 8
    assert caplog.text.count("cannot be decoded") >= 8


def test_a_training_on_imagenet_does_not_go_on_from_other_classes(undisturbed, tmp_path, capsys):
    wnid = read_wnids()[0]
    draw_classes(tmp_path / "ImageNet" / "train" / "data", **{wnid: 2})
    (tmp_path / "ImageNet" / "val" / "data").mkdir(parents=True)
    draw_image(tmp_path / "ImageNet" / "val" / "data" / "0.png")
    (tmp_path / "ImageNet" / "val" / "val.txt").write_text("0.png 0\n")
    options = ["--datasets-dir", tmp_path, "--output", undisturbed, "--resume"]
    status, _, err = train_in_process(capsys, *options)
    assert status == 2
    assert "was saved with other settings: images 12 and 3 images of 2 classes, digest" in err
    assert err.endswith("(now None)\n")

    # Before --images, a state named no images.
    options = ["--datasets-dir", tmp_path, "--output", tmp_path / "out"]
    assert train_in_process(capsys, *options)[0] == 0
    state = torch.load(tmp_path / "out" / "training_state.pth", weights_only=True)
    assert state["format"] == 2 and "classifier" not in state
    del state["settings"]["images"]
    torch.save(state, tmp_path / "out" / "training_state.pth")
    assert train_in_process(capsys, *options, "--resume", "--iterations", "8")[0] == 0


def test_a_state_of_other_images_is_refused(undisturbed, images, tmp_path, capsys):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    shutil.copytree(undisturbed, tmp_path / "out")
    options = ["--output", tmp_path / "out", "--resume", "--iterations", "8"]
    assert train_in_process(capsys, "--images", folder, *options)[0] == 0  # the folder may have moved
    (folder / "dog" / "0.png").unlink()
    status, _, err = train_in_process(capsys, "--images", folder, *options)
    assert status == 2
    assert "was saved with other settings: images 12 and 3 images of 2 classes, digest" in err
    (tmp_path / "out" / "training_state.pth").unlink()
    status, _, err = train_in_process(capsys, "--images", folder, "--output", tmp_path / "out")
    assert (status, err) == (
        2,
        f"error: {tmp_path}/out/classifier.pth is of an earlier training: --resume, or another --output\n",
    )


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        ({}, "no classifier"),
        (
            {"fc.weight": torch.zeros(3, 1280), "fc.bias": torch.zeros(3)},
            "its classifier is one of 3 classes",
        ),
        ({"fc.weight": torch.full((2, 1280), torch.nan), "fc.bias": torch.zeros(2)}, "not finite"),
        ([1], "'classifier' of it is list"),
    ],
)
def test_a_state_with_another_classifier_is_one_line(undisturbed, tmp_path, train, classifier, message):
    state = torch.load(undisturbed / "training_state.pth", weights_only=True)
    torch.save(state | {"classifier": classifier}, tmp_path / "training_state.pth")
    status, _, err = train(tmp_path, "--resume")
    assert (status, err.count("error: ")) == (2, 1)
    assert message in err and "start anew with another --output" in err


def coarse_class(index):
    """Return the coarse class of a class of ImageNet."""
    if index in range(7, 25) or index in range(80, 101) or index in range(127, 147):
        return "birds"
    if index in range(151, 269):
        return "dogs"
    if index < 398:
        return "other animals"
    return "things" if index < 923 else "food and nature"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Folders of photographs of ImageNet in five coarse classes."""
    source, folder = SHARED / "data" / "datasets" / "ImageNet", tmp_path_factory.mktemp("photographs")
    indices = {wnid: index for index, wnid in enumerate(read_wnids())}
    labelled = [(path, indices[path.parent.name]) for path in sorted(source.glob("train/data/*/*.JPEG"))]
    lines = (source / "val" / "val.txt").read_text().splitlines()
    labelled += [(source / "val" / "data" / name, int(label)) for name, label in map(str.split, lines)]
    chosen = {}
    for path, index in labelled:
        chosen.setdefault(coarse_class(index), []).append(path)
    for label, paths in chosen.items():
        (folder / label).mkdir()
        for path in paths[:20]:
            (folder / label / path.name).symlink_to(path)
    return folder


@pytest.mark.slow
@needs_photographs
def test_photographs_train_both_stages_and_attention_lowers_the_loss(
    photographs, tmp_path, capsys, monkeypatch
):
    options = ["--images", photographs, "--crop", "224", "--resize", "249", "254", "--lr", "0.003"]
    options += ["--iterations", "100", "--checkpoint-every", "50", "--precompute", tmp_path / "features.npy"]
    status, reports, err = train_in_process(capsys, *options, "--output", tmp_path / "whole")
    assert status == 0, err
    first, _, last = reports
    assert (first["classes"], first["train_images"], first["val_images"]) == (5, 80, 20)
    assert first["train_accuracy"] > 0.95
    assert first["val_accuracy"] > 0.4  # chance is 0.2
    assert last["loss"] < first["train_loss"]  # the loss of equal weights, of the same crops

    interrupt(Training_ImageNet, "train_step", monkeypatch, 30)
    with pytest.raises(SystemExit):
        train_in_process(capsys, *options, "--output", tmp_path / "parts")
    monkeypatch.undo()
    assert train_in_process(capsys, *options, "--output", tmp_path / "parts", "--resume")[0] == 0
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")
