"""Backbones from timm, compared with timm, torchvision and the project's backbones."""

import sys

import numpy as np
import pytest
import torch
import torchvision
from conftest import draw_image
from helpers import load_folded_backbone

from models.backbones.registry import BACKBONES, backbone_spec
from models.poolings.rmac import RMAC
from models.retrieval_network import RetrievalNetwork
from utils.errors import UserError
from utils.images.loading import InputImage, load_pixels
from utils.options.shared import BackboneOptions, DescriptorOptions
from utils.weights.backbone_weights import read_tensors
from utils.weights.networks import load_backbone, load_classifier

timm = pytest.importorskip("timm")
safetensors_torch = pytest.importorskip("safetensors.torch")


def fill_at_random(module):
    """Give a network weights that make its features differ from cell to cell."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(
    ("name", "patch", "prefix"),
    [("test_vit", 16, 1), ("vit_small_patch14_reg4_dinov2", 14, 5), ("vit_small_patch16_dinov3", 16, 5)],
)
@torch.inference_mode()
def test_patch_tokens_form_a_map_of_images_of_any_size(name, patch, prefix):
    spec = backbone_spec(f"timm/{name}")
    features = spec.features().eval()
    fill_at_random(features)
    other = timm.create_model(name, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True).eval()
    other.load_state_dict(features.network.state_dict())
    assert spec.stride == patch
    for height, width in ((2 * patch, 3 * patch), (2 * patch + 1, 3 * patch - 1), (patch - 2, 5 * patch)):
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
        maps = features(images)
        rows, columns = -(-height // patch), -(-width // patch)
        assert maps.shape == (2, spec.channels, rows, columns)
        tokens = other.forward_features(images)  # timm pads by itself
        for row in range(rows):
            for column in range(columns):
                token = tokens[:, prefix + row * columns + column]
                torch.testing.assert_close(maps[:, :, row, column], token, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.inference_mode()
def test_timms_resnet101_with_torchvisions_weights_is_resnet101(tmp_path):
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet101().state_dict(), tmp_path / "resnet101.pth")
    file = tmp_path / "resnet101.pth"
    pixels = torch.randint(0, 256, (1, 70, 90, 3), dtype=torch.uint8)
    maps = []
    for name in ("resnet101", "timm/resnet101.tv_in1k"):
        backbone = load_backbone(backbone_spec(name), tmp_path, file)
        maps.append(backbone(backbone.prepare(pixels)))
    torch.testing.assert_close(*maps)
    weight, bias, _ = load_classifier(
        BackboneOptions(backbone="timm/resnet101.tv_in1k", backbone_weights=file)
    )
    state = torch.load(file)
    assert torch.equal(weight, state["fc.weight"]) and torch.equal(bias, state["fc.bias"])


@torch.inference_mode()
def test_timms_lite0_with_the_packaged_weights_gives_the_embedded_backbones_descriptors(tmp_path):
    embedded = load_backbone(BACKBONES["efficientnet_lite0"], tmp_path)
    other = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    values = embedded.features.state_dict().values()  # in the order of timm's layers
    state = dict(zip(other.state_dict(), values, strict=True))
    safetensors_torch.save_file(state, tmp_path / "lite0.safetensors")
    options = BackboneOptions(
        backbone="timm/tf_efficientnet_lite0", backbone_weights=tmp_path / "lite0.safetensors"
    )
    draw_image(tmp_path / "image.png", seed=2, size=(200, 150))
    pixels = load_pixels(InputImage(tmp_path / "image.png"), 300).unsqueeze(0)
    backbone = load_folded_backbone(options)
    descriptors = []
    for one, prepared in (
        (embedded, embedded.prepare(pixels)),
        (backbone, embedded.prepare(pixels)),
        (backbone, backbone.prepare(pixels)),  # timm has 127.5 for both numbers instead of 127 and 128
    ):
        descriptors.append(RetrievalNetwork(one, [RMAC(3, 32)]).eval()(prepared)[0, 0])
    assert float(descriptors[0] @ descriptors[1]) >= 0.999999
    assert float(descriptors[0] @ descriptors[2]) >= 0.9999


def test_means_and_scales_are_timms():
    preprocessing = backbone_spec("timm/vit_base_patch16_clip_224.openai").preprocessing()
    assert preprocessing.channel_order == "RGB"
    pixels = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    expected = [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]
    np.testing.assert_allclose(preprocessing(pixels).ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("timm/resnet5o", "timm has no network resnet5o: did you mean timm/resnet50"),
        ("timm/", "timm has no network "),
        ("timm/../x", "timm has no network ../x"),
        ("timm/resnet50.foo", "timm has no weights foo of resnet50: it has a1_in1k"),
        ("timm/mixer_s32_224", "does not describe images of any size"),
        ("resnet50", "backbone resnet50 is none of resnet101_caffe, resnet101, efficientnet_lite0"),
    ],
)
def test_names_that_give_no_backbone_are_refused(name, line):
    with pytest.raises(UserError, match=line):
        DescriptorOptions(backbone=name)


def test_timm_may_be_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="backbone timm/resnet26 needs timm: pip install timm"):
        DescriptorOptions(backbone="timm/resnet26")
    assert DescriptorOptions(backbone="efficientnet_lite0").spec.channels == 1280


def test_a_download_that_fails_names_the_file_to_get(monkeypatch, tmp_path):
    create = timm.create_model

    def fail(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host\nmore")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        UserError, match=r"no route to host\): .*https://huggingface.co/timm/test_resnet.r160"
    ):
        load_backbone(backbone_spec("timm/test_resnet.r160_in1k"), tmp_path)


def test_safetensors_are_read_and_checked(tmp_path):
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(1, dtype=torch.float16)}
    safetensors_torch.save_file(tensors, tmp_path / "x.safetensors")
    state = read_tensors(tmp_path / "x.safetensors")
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-3])
    with pytest.raises(UserError, match=r"x.safetensors is no .safetensors file"):
        read_tensors(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="no weights at"):
        read_tensors(tmp_path / "y.safetensors")


def test_weights_that_fit_in_part_are_refused(tmp_path):
    state = timm.create_model("test_vit").state_dict()
    state.pop("blocks.0.attn.qkv.weight")
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(
        UserError, match=r"1 of [0-9]+ parameters are missing, network\.blocks\.0\.attn\.qkv\.weight"
    ):
        load_backbone(backbone_spec("timm/test_vit"), tmp_path, tmp_path / "part.pth")
    state = timm.create_model("test_vit", img_size=320).state_dict()
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(UserError, match=r"network\.pos_embed has shape"):
        load_backbone(backbone_spec("timm/test_vit"), tmp_path, tmp_path / "large.pth")


@pytest.mark.parametrize("form", ["{}", "module.{}"])
def test_weights_of_a_deeper_network_are_refused(tmp_path, form):
    """ResNet-34 has the parameters of ResNet-18, and eight further blocks with ten parameters each."""
    deeper = timm.create_model("resnet34").state_dict()
    torch.save({form.format(name): tensor for name, tensor in deeper.items()}, tmp_path / "34.pth")
    with pytest.raises(
        UserError, match=r"larger network, with 80 further .*, network\.layer1\.2\.bn1\.bias "
    ):
        load_backbone(backbone_spec("timm/resnet18"), tmp_path, tmp_path / "34.pth")
    load_backbone(backbone_spec("timm/resnet34"), tmp_path, tmp_path / "34.pth")
    deeper = torchvision.models.resnet152().state_dict()
    torch.save({form.format(name): tensor for name, tensor in deeper.items()}, tmp_path / "152.pth")
    for name in ("resnet101", "resnet101_caffe"):
        with pytest.raises(UserError, match="larger network"):
            load_backbone(BACKBONES[name], tmp_path, tmp_path / "152.pth")
