import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import SHARED, golden_arrays, golden_inputs, needs_photographs, recipe_state_dict
from helpers import NO_PREPROCESSING
from PIL import Image
from torch import nn

from models.backbones.backbone import Backbone
from models.backbones.batch_norm_folding import fold_batch_norms
from models.backbones.registry import BACKBONES
from utils.weights.backbone_weights import read_backbone_weights
from utils.weights.networks import load_backbone


@pytest.fixture(scope="module")
def caffe():
    network = BACKBONES["resnet101_caffe"].features().eval()
    network.load_state_dict(recipe_state_dict(network, 2))
    return network


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("size", golden_inputs("backbone", "features"))
@torch.inference_mode()
def test_features_are_the_originals(caffe, size, folded):
    arrays = golden_arrays("backbone")
    name = "x".join(map(str, size))
    network = fold_batch_norms(copy.deepcopy(caffe)) if folded else caffe
    rgb = torch.from_numpy(np.ascontiguousarray(arrays[f"{name}/bgr"][::-1].transpose(1, 2, 0)))
    features = network(BACKBONES["resnet101_caffe"].preprocessing()(rgb.unsqueeze(0)))[0, ::16].numpy()
    expected = arrays[f"{name}/features"]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("backbone", "side", "cells"),
    [
        ("resnet101_caffe", 33, 1),
        ("resnet101_caffe", 97, 3),
        ("resnet101_caffe", 225, 7),
        ("resnet101_caffe", 1024, 32),
        ("resnet101_caffe", 1, 1),
        ("resnet101_caffe", 2, 1),
        ("resnet101", 33, 2),
        ("resnet101", 1, 1),
        ("efficientnet_lite0", 33, 2),
        ("efficientnet_lite0", 225, 8),
        ("efficientnet_lite0", 1, 1),
    ],
)
@torch.inference_mode()
def test_number_of_cells_along_a_side(backbone, side, cells):
    spec = BACKBONES[backbone]
    features = spec.features().eval()(torch.zeros(1, 3, side, 40))
    assert features.shape[1:3] == (spec.channels, cells)
    assert torch.isfinite(features).all()


@torch.inference_mode()
def test_resnet101_is_torchvisions_last_stage():
    torch.manual_seed(0)
    expected_network = torchvision.models.resnet101().eval()
    outputs = []
    expected_network.layer4.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    network = BACKBONES["resnet101"].features().eval()
    network.load_state_dict(expected_network.state_dict(), strict=False)
    images = torch.randn(1, 3, 70, 50)
    expected_network(images)
    torch.testing.assert_close(network(images), outputs[0])


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.inference_mode()
def test_folding_changes_no_feature(backbone):
    network = BACKBONES[backbone].features().eval()
    network.load_state_dict(recipe_state_dict(network, 3))
    network.double()  # in float32, rounding grows with the depth
    images = torch.randn(2, 3, 97, 65, generator=torch.Generator().manual_seed(0)).double()
    expected = network(images)
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), expected, rtol=1e-7, atol=1e-9)


def test_a_backbone_computes_the_same_in_each_memory_format():
    backbone = Backbone(nn.Conv2d(3, 4, 3).double(), NO_PREPROCESSING, channels=4, stride=1)
    pixels = torch.arange(2 * 5 * 6 * 3, dtype=torch.uint8).reshape(2, 5, 6, 3)
    expected = F.conv2d(pixels.permute(0, 3, 1, 2).double(), *backbone.features.parameters()).float()
    for memory_format in (torch.channels_last, torch.contiguous_format):
        backbone.set_memory_format(memory_format)
        images = backbone.prepare(pixels)
        assert images.is_contiguous(memory_format=memory_format)
        assert backbone.features.weight.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(backbone(images), expected)


def test_only_an_evaluated_network_can_be_folded():
    with pytest.raises(ValueError, match="evaluation mode"):
        fold_batch_norms(BACKBONES["efficientnet_lite0"].features())


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet101_caffe", [30 - 103.93900299, 20 - 116.77899933, 10 - 123.68000031]),
        ("resnet101", [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]),
        ("efficientnet_lite0", [(10 - 127) / 128, (20 - 127) / 128, (30 - 127) / 128]),
    ],
)
def test_pixels_are_normalised_as_each_backbone_was_trained(backbone, expected):
    red, green, blue = 10, 20, 30
    pixels = torch.tensor([red, green, blue], dtype=torch.uint8).expand(1, 2, 3, 3)
    normal = BACKBONES[backbone].preprocessing()(pixels)
    assert normal.shape == (1, 3, 2, 3)
    torch.testing.assert_close(normal[0, :, 1, 2], torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@needs_photographs
@torch.inference_mode()
def test_efficientnet_recognises_photographs():
    spec = BACKBONES["efficientnet_lite0"]
    network = fold_batch_norms(load_backbone(spec, None)).to(memory_format=torch.channels_last)
    weights, _ = read_backbone_weights(spec, None)
    data = SHARED / "data" / "datasets" / "ImageNet"
    wnids = (SHARED / "data" / "imagenet_wnids.txt").read_text().split()
    labelled = [
        (path, wnids.index(path.parent.name)) for path in sorted((data / "train" / "data").glob("*/*"))
    ]
    for line in (data / "val" / "val.txt").read_text().splitlines():
        name, label = line.split()
        labelled.append((data / "val" / "data" / name, int(label)))
    hits = 0
    for path, label in labelled:
        image = Image.open(path).convert("RGB")
        ratio = 256 / min(image.size)
        image = image.resize([round(side * ratio) for side in image.size], Image.Resampling.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = torch.from_numpy(np.array(image.crop((left, top, left + 224, top + 224)))).unsqueeze(0)
        mean = network(spec.preprocessing()(pixels)).mean((2, 3))
        hits += int(F.linear(mean, weights["fc.weight"], weights["fc.bias"]).argmax()) == label
    assert len(labelled) == 420
    assert hits / len(labelled) == pytest.approx(0.89, abs=0.01)


@pytest.mark.parametrize("variant", [0, 1, 2])
@torch.inference_mode()
def test_efficientnet_lite_equals_timms(variant):
    timm = pytest.importorskip("timm")
    network = BACKBONES[f"efficientnet_lite{variant}"].features().eval()
    other = timm.create_model(f"tf_efficientnet_lite{variant}", num_classes=0, global_pool="").eval()
    network.load_state_dict(recipe_state_dict(network, 3))
    # Both register the same layers in the same order.
    other.load_state_dict(dict(zip(other.state_dict(), network.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 97, 130, generator=torch.Generator().manual_seed(0))
    features = network(images)
    assert features.shape == (1, 1280, 4, 5)  # 97 / 32 and 130 / 32, rounded up
    torch.testing.assert_close(features, other.forward_features(images))
