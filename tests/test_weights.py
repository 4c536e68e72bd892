import io
import os
import pickle
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from conftest import authors_head_file, needs_authors_head
from helpers import load_folded_backbone
from sklearn.decomposition import PCA
from torch import nn
from torchvision.models import ResNet101_Weights

from models.backbones.registry import BACKBONES
from models.backbones.spec import DownloadedWeights
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.errors import UserError
from utils.options.shared import BackboneOptions
from utils.weights.backbone_weights import read_backbone_weights
from utils.weights.networks import (
    check_head_files,
    load_attention,
    load_backbone,
    load_whitening,
)
from utils.weights.state_dicts import fill, read_state_dict


def save_pca(folder, components, mean):
    np.save(folder / "pca_components.npy", components)
    np.save(folder / "pca_mean.npy", mean)


@pytest.mark.parametrize("zipped", [False, True])
def test_reads_large_and_small_tensors_in_their_order(tmp_path, zipped):
    tensors = {f"t{size}": torch.arange(float(size)) for size in (3, 100_000, 1, 5000)}
    torch.save(tensors, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    state = read_state_dict(tmp_path / "x.pth")
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())


def test_a_wrong_length_reserves_no_memory(tmp_path):
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pth").read_bytes()
    length, name = b"\x10\0\0\0", b"protocol_version"
    assert length + name in data
    (tmp_path / "x.pth").write_bytes(data.replace(length + name, b"\0\0\0\xf0" + name))  # 4 GB of text
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="cannot be read as a state dict of tensors"):
            read_state_dict(tmp_path / "x.pth")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_reads_files_of_2018_with_cuda_storages(tmp_path, monkeypatch):
    path = tmp_path / "old.pth"
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save({"weight": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    assert b"cuda:0" in path.read_bytes()
    state = read_state_dict(path)
    assert state["weight"].tolist() == [0, 1, 2]
    assert state["weight"].device.type == "cpu"


@needs_authors_head
def test_reads_the_authors_file():
    head = load_attention(authors_head_file(), 2048, "tanh")
    expected = torch.load(authors_head_file(), map_location="cpu", weights_only=True)
    assert expected["conv_att_1.weight"].shape == (64, 4096, 1)
    for name, parameter in head.named_parameters():
        assert torch.equal(parameter, expected[name].cpu()), name


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("save", [torch.save, lambda item, path: path.write_bytes(pickle.dumps(item))])
def test_unpickles_nothing_but_tensors(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    save({"weight": Malicious()}, tmp_path / "code.pth")
    with pytest.raises(UserError, match=r"code\.pth cannot be read"):
        read_state_dict(tmp_path / "code.pth")
    np.save(tmp_path / "pca_components.npy", np.array([Malicious()], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"pca_components\.npy is unreadable: its values are of type object"):
        load_whitening(tmp_path, 1)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.5, 0.98])
def test_a_truncated_file_is_named(tmp_path, zipped, share):
    path = tmp_path / "part.pth"
    torch.save({"weight": torch.rand(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"part\.pth cannot be read"):
        read_state_dict(path)


def test_what_is_no_state_dict_is_an_error(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no state dict"):
        read_state_dict(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, "1 of 2 parameters are missing, bias"),
        (
            {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)},
            r"weight has shape \(3, 3\), expected \(2, 3\)",
        ),
        ({"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)}, "not finite"),
        (  # finite in float64, infinite in the module's float32
            {"weight": torch.full((2, 3), 1e39, dtype=torch.float64), "bias": torch.zeros(2)},
            "not finite",
        ),
    ],
)
def test_weights_of_another_network_are_refused(state, message):
    with pytest.raises(UserError, match=message):
        fill(nn.Linear(3, 2), state, "some.pth")


def test_the_counters_of_batch_norms_may_be_missing_and_a_classifier_be_there():
    norm = nn.BatchNorm2d(2)
    state = {name: value + 5 for name, value in norm.state_dict().items() if name != "num_batches_tracked"}
    fill(norm, state | {"fc.weight": torch.zeros(3)}, "old.pth")
    assert norm.running_mean.tolist() == [5, 5]


def test_the_error_for_a_missing_backbone_names_its_source_and_an_alternative(tmp_path):
    with pytest.raises(UserError, match=r"resnet101_caffeProto\.pth.*Prepare_Datasets.*efficientnet_lite0"):
        load_backbone(BACKBONES["resnet101_caffe"], tmp_path)


def test_the_address_of_resnet101_is_that_of_torchvision():
    assert BACKBONES["resnet101"].weights == DownloadedWeights(ResNet101_Weights.IMAGENET1K_V1.url)


def test_a_failed_download_is_an_error(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match=r"resnet101-63fe2227\.pth cannot be downloaded \(no route to host\)"):
        load_backbone(BACKBONES["resnet101"], tmp_path)


def test_the_embedded_backbone_has_the_published_tensors():
    state, _ = read_backbone_weights(BACKBONES["efficientnet_lite0"], None)
    assert len(state) == 296
    assert state["fc.weight"].shape == (1000, 1280)
    assert len(BACKBONES["efficientnet_lite0"].features().state_dict()) == 294


def test_bfloat16_leaves_the_embedded_backbones_first_filters_as_they_are():
    full = load_folded_backbone(BackboneOptions(backbone="efficientnet_lite0")).features
    options = BackboneOptions(backbone="efficientnet_lite0", precision="bfloat16")
    mixed = load_folded_backbone(options).features
    assert mixed.conv_stem.weight.equal(full.conv_stem.weight)
    assert mixed.blocks[0].depthwise_conv.weight.equal(full.blocks[0].depthwise_conv.weight)
    assert mixed.conv_head.weight.equal(full.conv_head.weight.bfloat16())
    types = [block.depthwise_conv.weight.dtype for block in mixed.blocks]
    assert types == [torch.float32] * 9 + [torch.bfloat16] * 7


@pytest.mark.parametrize(
    ("files", "needs", "message"),
    [
        ([], (True, True), "--pooling rmac --no-whiten does without"),
        (["pca_components.npy", "pca_mean.npy"], (True, True), "pth.*--pooling rmac does without"),
        (["pca_components.npy"], (False, True), r"lacks \S*pca_mean.npy.*; --no-whiten does without"),
    ],
)
def test_missing_head_files_are_reported_with_the_options_that_avoid_them(tmp_path, files, needs, message):
    folder = tmp_path / "efficientnet_lite0"
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    attention, pca = needs
    options = BackboneOptions(backbone="efficientnet_lite0", weights_dir=tmp_path)
    with pytest.raises(UserError, match=message):
        check_head_files(options, needs_attention=attention, needs_pca=pca)
    check_head_files(options, needs_attention=False, needs_pca=False)


def test_attention_of_another_width_is_an_error(tmp_path):
    torch.save(ContextAwareRegionalAttention(8).state_dict(), tmp_path / "head.pth")
    with pytest.raises(UserError, match=r"conv_att_1.weight has shape \(64, 16, 1\), expected \(64, 32, 1\)"):
        load_attention(tmp_path / "head.pth", 16, "tanh")


def test_whitening_is_components_times_vector_plus_negative_mean(tmp_path):
    rng = np.random.default_rng(0)
    components, mean, vectors = rng.normal(size=(2, 3)), -rng.random(3), rng.normal(size=(4, 3))
    save_pca(tmp_path, components, mean)
    whitened = load_whitening(tmp_path, 3)(torch.from_numpy(vectors).float())
    np.testing.assert_allclose(whitened, [components @ (vector + mean) for vector in vectors], rtol=1e-5)


@pytest.mark.parametrize(
    ("components", "mean", "message"),
    [
        (np.zeros((2, 4)), np.zeros(3), "pca_components.npy has shape 2 x 4; this backbone needs D x 3"),
        (np.zeros((2, 3)), np.zeros(2), "pca_mean.npy has shape 2; this backbone needs 3"),
        (np.zeros((0, 3)), np.zeros(3), "pca_components.npy has shape 0 x 3"),
        (np.full((2, 3), np.inf), np.zeros(3), "not finite"),
        (np.array([["a"]]), np.zeros(3), "of type <U1, expected floating or integer"),
    ],
)
def test_a_pca_that_does_not_fit_is_an_error(tmp_path, components, mean, message):
    save_pca(tmp_path, components, mean)
    with pytest.raises(UserError, match=message):
        load_whitening(tmp_path, 3)


@pytest.mark.parametrize(("sign", "refused"), [(1, True), (-1, False), (0, False)])
def test_a_positive_mean_is_refused_with_what_to_do(tmp_path, sign, refused):
    # The mean that scikit-learn computes of region maxima, none of which is negative.
    learned = PCA(2).fit(np.random.default_rng(0).random((20, 3)))
    save_pca(tmp_path, learned.components_, sign * learned.mean_)
    if refused:
        with pytest.raises(UserError, match=r"pca_mean\.npy holds the mean, .* save -mean_"):
            load_whitening(tmp_path, 3)
    else:
        np.testing.assert_allclose(load_whitening(tmp_path, 3).negative_mean, sign * learned.mean_, rtol=1e-6)


def test_a_truncated_pca_is_named(tmp_path):
    save_pca(tmp_path, np.zeros((2, 3)), np.zeros(3))
    path = tmp_path / "pca_mean.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(
        UserError, match=r"pca_mean\.npy is unreadable: it has 144 bytes but its header says 152"
    ):
        load_whitening(tmp_path, 3)


def test_a_backbone_downloaded_by_torchvision_is_never_unpickled_unsafely(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save({"conv1.weight": Malicious()}, tmp_path / "hub" / "checkpoints" / "resnet101-63fe2227.pth")
    with pytest.raises(
        UserError, match=r"resnet101-63fe2227\.pth cannot be read .*; put the whole file into"
    ):
        load_backbone(BACKBONES["resnet101"], tmp_path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("load", "file", "message"),
    [
        (
            partial(load_backbone, BACKBONES["resnet101_caffe"]),
            "resnet101_caffeProto.pth",
            "Datasets.py weights",
        ),
        (lambda folder: load_attention(folder / "a.pth", 8, "tanh"), "a.pth", "--pooling rmac does without"),
        (lambda folder: load_whitening(folder, 8), "pca_components.npy", "--no-whiten does without"),
    ],
)
def test_an_unreadable_file_is_reported_with_what_to_do(tmp_path, load, file, message):
    (tmp_path / file).write_bytes(b"PK unreadable")
    with pytest.raises(
        UserError,
        match=rf"{file} (cannot be read .*is it complete|is unreadable: it is no complete).*{message}",
    ):
        load(tmp_path)


def test_a_wrong_backbone_file_says_where_the_right_one_is(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "resnet101_caffeProto.pth")
    with pytest.raises(UserError, match=r"parameters are missing.*Prepare_Datasets"):
        load_backbone(BACKBONES["resnet101_caffe"], tmp_path)


@pytest.mark.parametrize("odd", [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3).to_sparse()])
def test_weights_are_dense_real_numbers(odd):
    with pytest.raises(UserError, match="weight holds no real numbers"):
        fill(nn.Linear(3, 2), {"weight": odd, "bias": torch.zeros(2)}, "some.pth")


def test_a_component_of_zeros_is_unreadable(tmp_path):
    save_pca(tmp_path, np.array([[1.0, 0, 0], [0, 0, 0]]), np.zeros(3))
    with pytest.raises(UserError, match=r"pca_components\.npy is unreadable: a component is all zeros"):
        load_whitening(tmp_path, 3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "epoch": 90},  # as torchvision's training saves them
        lambda s: {f"module.{n}": t for n, t in s.items()},
    ],
)
def test_wrapped_state_dicts_are_unwrapped(tmp_path, wrap):
    torch.save(wrap({"weight": torch.arange(3.0)}), tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth")["weight"].tolist() == [0, 1, 2]


def test_tensors_on_meta_are_refused(tmp_path):
    torch.save({"weight": torch.empty(3, device="meta")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="meta"):
        read_state_dict(tmp_path / "w.pth")


def save_script(path):
    torch.jit.script(nn.Linear(3, 2)).save(path)


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(
    ("save", "message"),
    [
        (
            lambda path: torch.save(nn.Linear(3, 2), path),
            r"\(it holds a Python object, torch\.nn\.modules\.linear\.Linear",
        ),
        (save_script, r"\(it is a TorchScript program: save the state_dict"),
        (
            lambda path: torch.save({"x": torch.zeros(1), "module.x": torch.ones(1)}, path),
            r"holds both x and module\.x: save one of them",
        ),
        (os.mkfifo, "it is a pipe, not a file"),
        (os.mkdir, "it is a folder, not a file"),
    ],
)
def test_other_contents_of_weights_files_are_named(tmp_path, save, message):
    save(tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"w\.pth.* {message}"):
        read_state_dict(tmp_path / "w.pth")


def test_a_pipe_instead_of_a_download_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    os.mkfifo(tmp_path / "hub" / "checkpoints" / "resnet101-63fe2227.pth")
    with pytest.raises(UserError, match=r"resnet101-63fe2227\.pth: it is a pipe"):
        load_backbone(BACKBONES["resnet101"], tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_class_name_of_100_kilobytes_is_refused_before_pytorch_searches_it(tmp_path, zipped):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    real, long = b"ctorch._utils\n_rebuild_tensor_v2\n", b"c" + b"q" * 100_000 + b"\nx\n"
    data = (tmp_path / "x.pth").read_bytes()
    if zipped:
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
            for name in source.namelist():
                file.writestr(name, source.read(name).replace(real, long))
    else:
        assert real in data
        (tmp_path / "x.pth").write_bytes(data.replace(real, long))
    with pytest.raises(UserError, match="a string of 100,002 characters"):  # "module name"
        read_state_dict(tmp_path / "x.pth")
