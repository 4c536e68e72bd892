"""Backbones from timm (PyTorch Image Models): convolutional networks and vision transformers.

timm is an optional package. Functions import it, since the import takes seconds.
"""

import difflib
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.spec import BackboneSpec, TimmWeights

SMALL_SIDE, LARGE_SIDE = 224, 448
"""Sides of the square images that a network is tried with: multiples of patches of 14, 16 and 32 pixels."""

ODD_SIDES = (250, 331)
"""Height and width of the image that a network is tried with next: no multiples of any stride."""

LONGER_SIDE = 512
"""Default S of descriptors and of the whitening's images. No network of timm was tuned here."""

CLOSE_NAMES = 3
"""Number of similar names in the error for an unknown name."""


class MapLayout(NamedTuple):
    """The form in which a network returns its features."""

    channels: int
    stride: int
    """Pixels per cell of the map; the side of a patch for a transformer."""
    is_tokens: bool
    """True if the features are patch tokens (N, T, C), False for maps."""
    prefix_tokens: int = 0
    """Tokens before the patch tokens, such as the class token and registers."""
    channels_last: bool = False
    """True if maps are (N, h, w, C)."""
    pads: bool = False
    """True if images are padded to a multiple of the stride first."""


class TimmFeatures(nn.Module):
    """The last feature map of a network from timm: (N, 3, H, W) -> (N, C, h, w).

    The patch tokens of a vision transformer form a map of ceil(H / stride) rows and ceil(W / stride) columns.
    Its images are padded at the right and at the bottom to a multiple of the stride with zeros, which are the
    mean color after preprocessing. Convolutional networks pad as they were trained to.

    Args:
        name: name of the network in timm.
        layout: form of the network's features.
    """

    def __init__(self, name: str, layout: MapLayout) -> None:
        super().__init__()
        self.network = create_network(name)
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps (N, C, h, w) of prepared images (N, 3, H, W)."""
        return feature_maps(self.network, self.layout, x)


def feature_maps(network: Any, layout: MapLayout, x: Tensor) -> Tensor:  # noqa: ANN401  as in create_network
    """Return the feature maps (N, C, h, w) of prepared images (N, 3, H, W) by a network of timm."""
    rows, columns = (-(-side // layout.stride) for side in x.shape[-2:])
    if layout.pads:
        right, bottom = columns * layout.stride - x.shape[-1], rows * layout.stride - x.shape[-2]
        x = F.pad(x, (0, right, 0, bottom))
    features: Tensor = network.forward_features(x)
    if layout.is_tokens:
        return features[:, layout.prefix_tokens :].transpose(1, 2).unflatten(2, (rows, columns))
    return features.permute(0, 3, 1, 2) if layout.channels_last else features


def timm_backbone(name: str) -> BackboneSpec:
    """Return the description of a backbone from timm, with the preprocessing that timm states for it.

    Args:
        name: name of the network in timm, with or without the tag of its weights: `resnet50.a1_in1k`.

    Raises:
        ValueError: timm is not installed, has no such network, or the network gives no feature map of an
            image of any size.
    """
    layout, settings = _probe(name)
    red, green, blue = (255 * value for value in settings["mean"])
    red_scale, green_scale, blue_scale = (255 * value for value in settings["std"])
    return BackboneSpec(
        features=partial(TimmFeatures, name, layout),
        weights=TimmWeights(name),
        channels=layout.channels,
        stride=layout.stride,
        channel_order="RGB",
        mean=(red, green, blue),
        scale=(red_scale, green_scale, blue_scale),
        module_name=partial(_module_name, settings.get("classifier")),
        longer_side=LONGER_SIDE,
        pca_longer_side=LONGER_SIDE,
        is_nonnegative=False,
    )


def create_network(name: str) -> Any:  # noqa: ANN401  timm states no class with forward_features
    """Return a network of timm with random weights and without classifier, for images of any size."""
    import timm

    try:  # transformers take this option, convolutional networks do not
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(name, num_classes=0)


def _module_name(classifier: str | None, published: str) -> str:
    """Return a parameter's name in `TimmFeatures`; the classifier's layer is `fc`, as in torchvision."""
    if isinstance(classifier, str) and published.startswith(f"{classifier}."):
        return f"fc.{published.removeprefix(f'{classifier}.')}"
    return f"network.{published}"


@lru_cache
def _probe(name: str) -> tuple[MapLayout, dict[str, Any]]:
    """Return the layout of a network's features and its pretrained settings, without computing anything."""
    _check_name(name)
    with torch.device("meta"), torch.inference_mode():
        try:
            network = create_network(name).eval()
            small, large = (
                network.forward_features(torch.empty(1, 3, side, side)) for side in (SMALL_SIDE, LARGE_SIDE)
            )
        except Exception as error:  # each network has checks of its own
            raise _not_of_any_size(name, error) from error
        layout = _layout(network, small, large)
        if layout is None:
            shape = getattr(small, "shape", None)
            shown = "no tensor" if shape is None else f"the shape {tuple(shape)}"
            raise ValueError(f"backbone timm/{name} has no feature map: its features have {shown}")
        images = torch.empty(1, 3, *ODD_SIDES)
        try:
            feature_maps(network, layout, images)
        except Exception:
            layout = layout._replace(pads=True)
            try:
                feature_maps(network, layout, images)
            except Exception as error:
                raise _not_of_any_size(name, error) from error
    return layout, dict(network.pretrained_cfg)


def _not_of_any_size(name: str, error: Exception) -> ValueError:
    return ValueError(f"backbone timm/{name} does not describe images of any size ({first_line(error)})")


def _layout(network: Any, small: Tensor, large: Tensor) -> MapLayout | None:  # noqa: ANN401  as above
    """Return the layout of the features of a small and a large square image; None if they form no map."""
    channels = int(network.num_features)
    if not isinstance(small, Tensor) or small.ndim not in (3, 4):
        return None
    if small.ndim == 4:
        channels_last = small.shape[1] != channels
        cells = small.shape[1] if channels_last else small.shape[2]
        if small.shape[3 if channels_last else 1] != channels or cells < 2:
            return None
        return MapLayout(channels, _reduction(network, SMALL_SIDE // cells), False, 0, channels_last)
    patch = _reduction(network, 0)
    if patch < 1 or small.shape[2] != channels or large.shape[1] <= small.shape[1]:
        return None
    return MapLayout(channels, patch, True, int(getattr(network, "num_prefix_tokens", 0)), pads=True)


def _reduction(network: Any, otherwise: int) -> int:  # noqa: ANN401  as in create_network
    """Return the stride of the last feature map that timm states, or another value if it states none."""
    info = getattr(network, "feature_info", None)
    last = info[-1] if isinstance(info, list) and info else info
    return int(last["reduction"]) if isinstance(last, dict) and "reduction" in last else otherwise


def _check_name(name: str) -> None:
    """Check that timm is installed and has a network of this name.

    Raises:
        ValueError: it is not, or has none; the message lists similar names.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(f"backbone timm/{name} needs timm: pip install timm") from error
    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        close = difflib.get_close_matches(network, timm.list_models(), CLOSE_NAMES)
        hint = f": did you mean {', '.join(f'timm/{one}' for one in close)}?" if close else ""
        raise ValueError(f"timm has no network {name}{hint}")
    tags = [one.partition(".")[2] for one in timm.list_models(f"{network}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ValueError(f"timm has no weights {tag} of {network}: it has {', '.join(tags) or 'none'}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
