import hashlib
import io
import threading

import numpy as np
import pytest
import torch
from conftest import authors_head_file, needs_authors_head, recipe_state_dict
from test_download import File, Host
from torch import nn

import Prepare_Datasets
from models.backbones.registry import BACKBONES
from models.backbones.resnet import CaffeResNet101Features
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.errors import UserError
from utils.options.shared import BackboneOptions
from utils.prepare import download as download_module
from utils.prepare import recipes
from utils.prepare import weights as module
from utils.program.run_command import run_command
from utils.weights.caffe_conversion import convert_features, for_bgr_images
from utils.weights.networks import load_backbone, load_classifier

CAFFE = BACKBONES["resnet101_caffe"]
CAFFE_MEAN = np.array([123.68000031, 116.77899933, 103.93900299])  # red, green, blue
TORCHVISION_MEAN = 255 * np.array([0.485, 0.456, 0.406])
TORCHVISION_STD = 255 * np.array([0.229, 0.224, 0.225])
BACKBONE, HEAD = "resnet101_caffeProto.pth", "ContextAwareRegionalAttention_weights.pth"
PCA = ["pca_components.npy", "pca_mean.npy"]
FEATURES = "imagenet-caffe-resnet101-features-10a101d.pth"


def sequence():
    """Return the layers of the import: torchvision's but the last two, with Caffe's strides and pooling."""
    network = CaffeResNet101Features()
    layers = [network.conv1, network.bn1, network.relu, network.maxpool]
    return nn.Sequential(*layers, network.layer1, network.layer2, network.layer3, network.layer4).eval()


def small_state(names_and_shapes):
    """Return a state dict whose tensors each repeat one positive number, so that its file is small."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.rand((), generator=generator) + 0.1).expand(shape) for name, shape in names_and_shapes
    }


def save_small_features(path):
    with torch.device("meta"):
        layers = sequence()
    torch.save(small_state((name, value.shape) for name, value in layers.state_dict().items()), path)


@pytest.fixture(scope="module")
def converted():
    """The layers of the import with random weights, and the backbone with the converted ones."""
    layers, backbone = sequence(), CAFFE.build().eval()
    layers.load_state_dict(recipe_state_dict(layers, 5))
    backbone.features.load_state_dict(for_bgr_images(layers.state_dict(), "import"))
    return layers, backbone


def imported_input(pixels, mean):
    """Return the input of the import (N, 3, H, W), RGB, for pixels (N, H, W, 3), RGB."""
    values = (pixels.astype(np.float64) / 255 - mean / 255) / (TORCHVISION_STD / 255)
    return torch.from_numpy(values).float().permute(0, 3, 1, 2)


@torch.no_grad()
def test_the_converted_network_computes_what_the_imported_one_does(converted):
    layers, backbone = converted
    pixels = np.random.default_rng(0).integers(0, 256, (2, 97, 64, 3), dtype=np.uint8)
    expected = layers(imported_input(pixels, CAFFE_MEAN))
    maps = backbone(backbone.prepare(torch.from_numpy(pixels)))
    assert maps.shape == (2, 2048, 3, 2)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@torch.no_grad()
def test_the_means_make_the_difference_of_a_darker_image(converted):
    layers, backbone = converted
    pixels = np.random.default_rng(1).integers(1, 256, (1, 64, 64, 3), dtype=np.uint8)
    difference = CAFFE_MEAN - TORCHVISION_MEAN
    np.testing.assert_allclose(difference, [0.005, 0.499, 0.409], atol=1e-5)
    maps = backbone(backbone.prepare(torch.from_numpy(pixels)))
    darker = layers(imported_input(pixels - difference, TORCHVISION_MEAN))
    torch.testing.assert_close(maps, darker, rtol=1e-4, atol=1e-4 * darker.abs().max().item())
    same = layers(imported_input(pixels, TORCHVISION_MEAN))
    assert not torch.allclose(maps, same, rtol=1e-4, atol=1e-4 * same.abs().max().item())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"8.weight": torch.ones(1)}, "it holds 8.weight"),
        (lambda state: {f"x{name}": value for name, value in state.items()}, "it holds x0.weight"),
        (lambda state: state | {"0.weight": torch.ones(64, 1, 7, 7)}, "no 0.weight for them"),
        (lambda state: state | {"0.weight": torch.ones(64, 3, 7, 7).to_sparse()}, "no 0.weight for them"),
        (lambda state: {name: state[name] for name in ("0.weight", "1.bias")}, "parameters are missing"),
        (lambda state: state | {"1.bias": torch.full((64,), torch.nan)}, "not finite"),
        (lambda state: state | {"7.2.conv3.weight": torch.ones(3)}, "layer4.2.conv3.weight has shape (3,)"),
        (lambda state: [1], "no state dict"),
    ],
)
def test_another_file_is_not_converted(tmp_path, change, message):
    save_small_features(tmp_path / FEATURES)
    torch.save(change(torch.load(tmp_path / FEATURES)), tmp_path / FEATURES)
    with pytest.raises(UserError) as caught:
        convert_features(tmp_path / FEATURES, tmp_path / BACKBONE)
    assert message in str(caught.value)
    assert str(tmp_path / FEATURES) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [FEATURES]


def test_training_with_the_converted_file_names_what_it_lacks(tmp_path):
    save_small_features(tmp_path / FEATURES)
    convert_features(tmp_path / FEATURES, tmp_path / BACKBONE)
    with pytest.raises(UserError, match=r"has no classifier.*the authors' weights\.tar has it"):
        load_classifier(BackboneOptions(weights_dir=tmp_path))


def test_a_checksum_may_be_of_any_kind(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")  # examples of FIPS 180 and RFC 1321
    for digits in ("ba7816bf", "a9993e36", "90015098"):
        module.check_digest(path, digits)
    with pytest.raises(UserError, match="no checksum of it starts with ba7816c"):
        module.check_digest(path, "ba7816c")


@pytest.fixture
def host(monkeypatch):
    """An empty server that replaces all servers of weights."""
    host = Host()
    threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name in ("WEIGHTS", "ATTENTION_HEAD", "IMPORTED_FEATURES"):
        part = getattr(recipes, name)
        url = host.url(part.archives[0][0].rsplit("/", 1)[-1])
        local = recipes.Part(part.folder, part.wanted, ((url,),), part.files)
        monkeypatch.setattr(module, name, local)
    monkeypatch.setattr(download_module, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    yield host
    host.shutdown()
    host.server_close()


@pytest.fixture
def get_weights(host, tmp_path, capsys):
    """A function that runs the command line in this process and returns status, output and errors."""

    def run(*words):
        words = ["get", "weights", "--weights-dir", tmp_path / "weights", *words]
        status = run_command(lambda: Prepare_Datasets.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return run


def serve_head(host, monkeypatch):
    stream = io.BytesIO()
    torch.save(ContextAwareRegionalAttention(2048).state_dict(), stream)
    monkeypatch.setattr(module, "ATTENTION_HEAD_SHA256", hashlib.sha256(stream.getvalue()).hexdigest())
    host.serve(File(stream.getvalue()), HEAD)
    return stream.getvalue()


def serve_features(host, monkeypatch, folder, **sending):
    save_small_features(folder / "made.pth")
    content = (folder / "made.pth").read_bytes()
    monkeypatch.setattr(module, "IMPORTED_FEATURES_DIGITS", hashlib.sha256(content).hexdigest()[:7])
    host.serve(File(content, **sending), FEATURES)
    return content


def error_line(result):
    status, _, err = result
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.slow
def test_files_come_from_other_servers_and_the_error_names_the_next_step(
    host, get_weights, tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "weights"
    content = serve_head(host, monkeypatch)
    serve_features(host, monkeypatch, tmp_path)
    result = get_weights()
    line = error_line(result)
    command = f"python LearningPCA_landmark.py --weights-dir {folder} --output {folder}"
    expected = f"error: {folder} lacks {PCA[0]} and {PCA[1]} ({command} learns the whitening)\n"
    assert line == expected
    assert "cannot download weights.tar from" in caplog.text
    assert names_in(folder) == [HEAD, BACKBONE]
    assert (folder / HEAD).read_bytes() == content
    for name in (HEAD, BACKBONE):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert any(line.startswith(name) and digest in line for line in result[1].splitlines())
    load_backbone(CAFFE, folder)

    np.save(folder / PCA[0], np.eye(3, 2048, dtype=np.float32))
    np.save(folder / PCA[1], np.zeros(2048, np.float32))
    requests = len(host.ranges)
    status, out, err = get_weights()
    assert (status, len(out.splitlines()), err) == (0, 4, "")
    assert len(host.ranges) == requests


def test_without_any_server_the_error_names_a_step_for_each_file(get_weights, tmp_path):
    line = error_line(get_weights())
    assert f"{BACKBONE} (--archive takes it from a copy of weights.tar or {FEATURES})" in line
    assert f"{HEAD} (python Training_ImageNet.py" in line
    assert f"{PCA[0]} and {PCA[1]} (python LearningPCA_landmark.py" in line
    assert names_in(tmp_path / "weights") == []


def test_a_file_with_another_checksum_is_removed_and_left_out(
    host, get_weights, tmp_path, monkeypatch, caplog
):
    serve_features(host, monkeypatch, tmp_path)
    host.serve(File(b"<html>"), HEAD)
    host.serve(File(b"<html>"), "weights.tar")
    assert f"lacks {HEAD} (" in error_line(get_weights())
    assert names_in(tmp_path / "weights") == [BACKBONE]
    assert (
        f"{HEAD} is not the file that was published: no checksum of it starts with 038e6a852e" in caplog.text
    )
    assert "weights.tar" in caplog.text


def test_a_download_that_broke_off_is_resumed_by_the_next_run(host, get_weights, tmp_path, monkeypatch):
    serve_head(host, monkeypatch)
    size = len(serve_features(host, monkeypatch, tmp_path, cuts=[1000] + [0] * 5))
    assert f"lacks {BACKBONE} (" in error_line(get_weights())
    partial = tmp_path / "weights" / "downloads" / f"{FEATURES}.part"
    assert partial.stat().st_size == 1000 < size
    assert f"lacks {PCA[0]} and" in error_line(get_weights())
    assert host.ranges[-1] == "bytes=1000-"
    assert names_in(tmp_path / "weights") == [HEAD, BACKBONE]


def test_a_copy_of_the_import_is_converted_and_an_existing_backbone_kept(get_weights, tmp_path, caplog):
    save_small_features(tmp_path / "copy.pth")
    assert f"lacks {HEAD}" in error_line(get_weights("--archive", tmp_path / "copy.pth"))
    before = (tmp_path / "weights" / BACKBONE).read_bytes()
    assert (tmp_path / "copy.pth").exists()
    torch.save({}, tmp_path / "copy.pth")
    assert f"lacks {HEAD}" in error_line(get_weights("--archive", tmp_path / "copy.pth"))
    assert (tmp_path / "weights" / BACKBONE).read_bytes() == before
    assert "copy.pth was not converted" in caplog.text
    (tmp_path / "weights" / BACKBONE).unlink()
    assert "copy.pth is not the import" in error_line(get_weights("--archive", tmp_path / "copy.pth"))


@needs_authors_head
def test_the_checksum_of_the_head_is_the_authors():
    digest = hashlib.sha256(authors_head_file().read_bytes()).hexdigest()
    assert digest == recipes.ATTENTION_HEAD_SHA256
