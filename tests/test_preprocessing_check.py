"""The check that the preprocessing and the strides fit the weights, by hand and with real weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, needs_photographs
from torch import nn
from torch.distributions import Normal, kl_divergence

import LearningPCA_landmark
import Prepare_Datasets
import Search_Images
from models.backbones.preprocessing import Preprocessing
from models.backbones.registry import BACKBONES
from models.backbones.resnet import CaffeResNet101Features, ResNet101Features
from utils.data.mini import MiniSettings, draw_benchmark
from utils.file_names import IMAGES_FOLDER
from utils.options.shared import BackboneOptions
from utils.program.run_command import run_command
from utils.weights import check_on_images as module
from utils.weights.check_on_images import check_on_images, note_preprocessing, sample_pixels
from utils.weights.divergence import (
    Statistics,
    divergence_ratio,
    input_statistics,
    mean_divergence,
    movable_strides,
    stored_statistics,
    strides_moved,
)
from utils.weights.networks import load_backbone
from utils.weights.preprocessing_check import Setting, check_preprocessing, stride_divergences

LITE0, LITE2 = "efficientnet_lite0", "efficientnet_lite2"
IDENTITY = Preprocessing("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# Other preprocessings of EfficientNet-Lite, and what is said to fit better.
RIGHT = "RGB, minus 127, divided by 128 does"
WRONG = {
    "reversed order": {"channel_order": "BGR"},
    "0 to 1": {"mean": (0.0,) * 3, "scale": (255.0,) * 3},
    "0 to 255": {"mean": (0.0,) * 3, "scale": (1.0,) * 3},
    "torchvision": {"mean": (123.675, 116.28, 103.53), "scale": (58.395, 57.12, 57.375)},
    "Caffe": {"channel_order": "BGR", "mean": (103.939, 116.779, 123.68), "scale": (1.0,) * 3},
}


def statistics(mean, variance):
    return Statistics(torch.tensor(mean, dtype=torch.float64), torch.tensor(variance, dtype=torch.float64))


def spec_of(backbone, **changes):
    return replace(BACKBONES[backbone], **changes)


def test_the_divergence_is_that_of_torch():
    one, other = statistics([1.0, -2.0], [0.5, 4.0]), statistics([0.5, 3.0], [2.0, 1.0])
    normals = [Normal(side.mean, side.variance.sqrt()) for side in (one, other)]
    torch.testing.assert_close(one.divergence(other), kl_divergence(*normals))


def test_the_mean_divergence_is_over_channels_then_layers():
    stored = {"a": statistics([0.0, 0.0], [1.0, 1.0]), "b": statistics([0.0], [1.0])}
    inputs = {"a": statistics([2.0, 0.0], [1.0, 1.0]), "b": statistics([4.0], [1.0])}
    # A mean that is d deviations off diverges by d² / 2: 2 and 0 in a, 8 in b.
    assert mean_divergence(inputs, stored) == pytest.approx((1 + 8) / 2)
    assert mean_divergence({"b": statistics([float("nan")], [1.0])}, stored) == float("inf")


def test_the_ratio_counts_channels_by_how_much_the_two_inputs_differ():
    stored = {"a": statistics([0.0, 0.0], [1.0, 1.0])}
    # The second channel is equally wrong in both, and counts nothing: 3² to 1².
    one, other = {"a": statistics([1.0, 5.0], [1.0, 1.0])}, {"a": statistics([3.0, 5.0], [1.0, 1.0])}
    assert divergence_ratio(one, other, stored) == pytest.approx(9)
    assert divergence_ratio(other, one, stored) == pytest.approx(1 / 9)
    # Both channels differ by 2 between the inputs, and count the same: (9 + 1) to (1 + 9).
    one, other = {"a": statistics([1.0, 3.0], [1.0, 1.0])}, {"a": statistics([3.0, 1.0], [1.0, 1.0])}
    assert divergence_ratio(one, other, stored) == pytest.approx(1)


class Counted(nn.Identity):
    """A layer that counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x


def small_network():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3), Counted()).eval()
    for index in (0, 2):
        network[index].running_mean.fill_(100.0 * index + 1)
        network[index].running_var.fill_(2.0)
    return network


def test_the_inputs_of_each_batch_norm_are_counted_over_all_pixels_of_all_images():
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (5, 4, 3), dtype=np.uint8) for _ in range(3)]
    images.append(generator.integers(0, 256, (2, 7, 3), dtype=np.uint8))
    network, tensors = small_network(), [torch.from_numpy(image) for image in images]
    inputs = input_statistics(network, tensors, IDENTITY)
    assert list(inputs) == ["0", "2"]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    np.testing.assert_allclose(inputs["0"].mean, pixels.mean(0))
    np.testing.assert_allclose(inputs["0"].variance, pixels.var(0) + 1e-5)
    second = np.maximum((pixels - 1) / np.sqrt(2 + 1e-5), 0)
    np.testing.assert_allclose(inputs["2"].mean, second.mean(0), rtol=1e-5)
    np.testing.assert_allclose(inputs["2"].variance, second.var(0) + 1e-5, rtol=1e-5)
    assert network[3].calls == 4

    assert list(input_statistics(network, tensors, IDENTITY, layers=1)) == ["0"]
    assert network[3].calls == 4
    assert list(input_statistics(network, tensors, IDENTITY, layers=2)) == ["0", "2"]
    assert network[3].calls == 4  # the pass ends before the layers after the last batch norm


def test_batch_norms_without_statistics_of_a_training_are_left_out():
    network = small_network()
    network[2] = nn.BatchNorm2d(3)
    assert list(stored_statistics(network)) == ["0"]
    assert stored_statistics(network)["0"].variance[0].item() == pytest.approx(2 + 1e-5)
    network[0] = nn.BatchNorm2d(3, track_running_stats=False)
    assert stored_statistics(network) == {}
    images = [torch.zeros(4, 4, 3, dtype=torch.uint8)]
    assert check_preprocessing(network, BACKBONES[LITE0], images, quick=True) is None


def test_moved_strides_make_torchvisions_resnet_that_of_caffe_and_back():
    with torch.device("meta"):
        network, caffe = ResNet101Features(), CaffeResNet101Features()
    names = ["layer2.0", "layer3.0", "layer4.0"]
    assert list(movable_strides(network)) == list(movable_strides(caffe)) == names

    def strides(features):
        return [layer.stride for name, layer in features.named_modules() if name.endswith(("conv1", "conv2"))]

    before = strides(network)
    assert before != strides(caffe)
    with strides_moved(list(movable_strides(network).values())):
        assert strides(network) == strides(caffe)
    assert strides(network) == before


@pytest.mark.parametrize("name", BACKBONES)
def test_a_setting_is_the_preprocessing_of_its_backbone(name):
    pixels = torch.randint(0, 256, (1, 2, 2, 3), dtype=torch.uint8)
    setting = Setting.of(BACKBONES[name])
    assert torch.equal(setting.preprocessing()(pixels), BACKBONES[name].preprocessing()(pixels))
    reversed_once = setting.reversed_order.preprocessing()(pixels)
    assert torch.equal(reversed_once.flip(1), BACKBONES[name].preprocessing()(pixels))
    assert setting.reversed_order.reversed_order == setting


def test_a_setting_is_shown_in_the_order_of_its_channels():
    assert str(Setting.of(BACKBONES[LITE0])) == "RGB, minus 127, divided by 128"
    expected = "BGR, minus 103.9 116.8 123.7, divided by 1"
    assert str(Setting.of(BACKBONES["resnet101_caffe"])) == expected


@pytest.fixture(scope="module")
def features():
    """The layers of the packaged networks, by name."""
    return {name: load_backbone(BACKBONES[name], Path("weights")).features for name in (LITE0, LITE2)}


@pytest.fixture(scope="module")
def photographs():
    """Pixels of photographs, by data set."""
    folders = {"Landmarks": ("Landmarks", "jpg"), "ImageNet": ("ImageNet", "val", "data")}
    datasets = SHARED / "data" / "datasets"
    return {
        name: sample_pixels(sorted(datasets.joinpath(*parts).iterdir())) for name, parts in folders.items()
    }


@needs_photographs
@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "name"), [(LITE0, "Landmarks"), (LITE2, "ImageNet")])
def test_photographs_decide_the_preprocessing(features, photographs, backbone, name):
    images = photographs[name]
    assert len(images) == 64
    check = check_preprocessing(features[backbone], BACKBONES[backbone], images, quick=True)
    assert check.problem() is None
    assert check.is_order_decided
    assert check.divergences[check.current] < 0.02
    for change, changes in WRONG.items():
        spec, some = spec_of(backbone, **changes), images if change == "reversed order" else images[::4]
        check = check_preprocessing(features[backbone], spec, some, quick=True)
        assert RIGHT in check.problem(), change
        assert f"{check.current} does not fit them" in check.problem()
        assert check.is_order_decided or len(some) < len(images)


@needs_photographs
@pytest.mark.slow
def test_photographs_decide_the_strides(features, photographs):
    network, images, spec = features[LITE0], photographs["Landmarks"][::3], BACKBONES[LITE0]
    blocks = movable_strides(network)
    assert len(blocks) == 4
    check = check_preprocessing(network, spec, images, quick=True)
    assert check.strides == {}
    right = replace(check, strides=stride_divergences(network, images, check.fitting))
    assert right.problem() is None
    assert right.strides[""] < 0.04
    last = list(blocks)[-1]
    for text, pairs in ((last, [blocks[last]]), (f"all blocks ({', '.join(blocks)})", list(blocks.values()))):
        with strides_moved(pairs):
            moved = replace(check, strides=stride_divergences(network, images, check.fitting))
        assert f"with the stride of {text} in the other convolution" in moved.problem()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of data sets with a small Mini of 32 images."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_benchmark(folder / "Mini", MiniSettings(landmarks=2, distractors=16), workers=1)
    return folder


def drawn_images(drawn):
    return sorted((drawn / "Mini" / IMAGES_FOLDER).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [LITE0, LITE2])
def test_drawn_images_decide_the_scale_and_leave_the_order_open(features, drawn, backbone):
    images = sample_pixels(drawn_images(drawn))
    for changes in ({}, WRONG["reversed order"]):
        check = check_preprocessing(features[backbone], spec_of(backbone, **changes), images, quick=True)
        assert check.problem() is None
        assert not check.is_order_decided
    for change in ("0 to 1", "Caffe"):
        check = check_preprocessing(
            features[backbone], spec_of(backbone, **WRONG[change]), images, quick=True
        )
        assert "does not fit them" in check.problem()
        assert "minus 127, divided by 128 does" in check.problem()


@pytest.fixture(scope="module")
def unscaled(tmp_path_factory, features):
    """A file of Lite0's weights for images whose values are not divided."""
    state = features[LITE0].state_dict()
    path = tmp_path_factory.mktemp("weights") / "unscaled.pth"
    torch.save(state | {"conv_stem.weight": state["conv_stem.weight"] / 128}, path)
    return path


@pytest.fixture
def verify(tmp_path, capsys):
    """A function that runs `verify weights` in this process and returns status, output and errors."""

    def run(*words):
        words = ["verify", "weights", "--weights-dir", tmp_path / "weights", *words]
        status = run_command(lambda: Prepare_Datasets.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_verify_prints_the_divergences_and_names_what_fits(verify, drawn, unscaled):
    where = ["--datasets-dir", drawn, "--backbone", LITE0]
    status, out, err = verify(*where)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"divergences of {LITE0} on 32 images in {drawn / 'Mini' / IMAGES_FOLDER}"
    assert any(line.endswith("  RGB, minus 127, divided by 128 (as the backbone)") for line in lines[1:3])
    assert sum(line.endswith("strides as they are") for line in lines) == 1
    assert lines[-2] == "these images do not decide the channel order: name mixed photographs with --images"
    assert lines[-1] == f"the preprocessing fits the weights of {LITE0}"

    # The weights fit 127 subtracted and nothing divided; of the common ones, Caffe's is nearest to that.
    status, out, err = verify(*where, "--backbone-weights", unscaled)
    assert status == 2
    assert "the preprocessing fits" not in out
    assert err.startswith(f"error: the weights of {LITE0}: RGB, minus 127, divided by 128 does not fit them")
    assert "divided by 1 does (" in err


def test_verify_says_what_it_lacks(verify, tmp_path):
    assert "no data set in" in verify("--datasets-dir", tmp_path)[2]
    (tmp_path / "few").mkdir()
    words = ["--images", tmp_path / "few", "--backbone", LITE0]
    assert "the check needs 16 readable images or more" in verify(*words)[2]
    assert "backbone lite0 is none of" in verify("--backbone", "lite0")[2]


def test_there_is_no_verdict_on_a_network_without_batch_norms(verify, tmp_path, drawn_squares):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    words = ["--backbone", "timm/test_vit", "--backbone-weights", tmp_path / "vit.pth"]
    status, out, err = verify(*words, "--images", drawn_squares)
    assert (status, err) == (0, "")
    assert out.startswith("no verdict on timm/test_vit: it has no batch norms")


@pytest.fixture
def drawn_squares(tmp_path):
    """A folder of sixteen images of random squares, and of a file that is none."""
    from conftest import draw_image

    folder = tmp_path / "squares"
    folder.mkdir()
    for seed in range(16):
        draw_image(folder / f"{seed:02d}.png", seed)
    (folder / "99.png").write_bytes(b"no image")
    return folder


@pytest.mark.slow
def test_only_weights_of_the_user_are_noted_and_only_on_enough_images(unscaled, drawn_squares, caplog):
    given = BackboneOptions(backbone=LITE0, backbone_weights=unscaled)
    paths = sorted(drawn_squares.iterdir())
    assert check_on_images(given, paths, quick=True).images == 16
    note_preprocessing(BackboneOptions(backbone=LITE0), paths)
    note_preprocessing(given, paths[:15])
    note_preprocessing(given, paths[1:])
    assert caplog.messages == []
    note_preprocessing(given, paths)
    (message,) = caplog.messages
    assert message.startswith(f"note: the weights of {LITE0}: ")


@pytest.mark.slow
def test_jobs_check_the_weights_on_their_images(
    measure, dataset, unscaled, tmp_path, monkeypatch, caplog, capsys
):
    monkeypatch.setattr(module, "FEWEST_IMAGES", 4)
    network = ["--backbone", LITE0, "--backbone-weights", unscaled, "--device", "cpu"]

    def noted():
        notes = [text for text in caplog.messages if text.startswith("note: the weights of")]
        caplog.clear()
        return len(notes)

    assert measure(network=[*network, "--pooling", "rmac", "--no-whiten"])[0] == 0
    assert noted() == 1
    words = ["--images", dataset / "jpg", "--output", tmp_path / "new", "--S", "64", "--min-side", "16"]
    words += ["--L", "1", "--components", "2", "--workers", "0", *network]
    assert run_command(lambda: LearningPCA_landmark.command_line([str(word) for word in words])) == 0
    assert noted() == 1
    words = ["index", dataset / "jpg", "--index", tmp_path / "index", "--S", "64", "--workers", "0"]
    words += [*network, "--pooling", "rmac", "--no-whiten"]
    assert run_command(lambda: Search_Images.command_line([str(word) for word in words])) == 0
    assert noted() == 1
