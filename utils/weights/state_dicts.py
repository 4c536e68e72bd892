"""Safe reading of weight files, and checks that they fit a module."""

import hashlib
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.errors import BadFileError, UserError
from utils.files.arrays import read_array
from utils.files.reading import open_checked
from utils.weights.saved_pickles import BoundedReader, check_strings

WRAPPER = "module."
"""Prefix of the names in a state dict of nn.DataParallel."""

CHECKPOINT_KEYS = ("state_dict", "model")
"""Keys of the state dict in checkpoints, which also hold an optimizer and numbers."""

COUNTER = "num_batches_tracked"
"""Suffix of the counters of batch norms, which no output depends on."""

LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""A part of the name of a parameter that is the number of a layer."""

DIGEST_CHARACTERS = 16


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, in the format of today or of 2018, to the CPU. Only tensors are unpickled.

    A state dict under the key `state_dict` or `model` of another dict is unwrapped, and the prefix `module.`
    is removed from names.

    Raises:
        UserError: the file is missing, is unreadable or is no state dict.
    """
    try:
        state = load_plain_tensors(path, "a state dict of tensors")
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}") from error
    if isinstance(state, Mapping):
        state = next((state[key] for key in CHECKPOINT_KEYS if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadFileError(f"{path} is no state dict: expected parameter names with a tensor each")
    if any(value.is_meta for value in state.values()):
        raise BadFileError(
            f"{path} holds tensors without values (on the device meta): save the weights again"
        )
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        if named.setdefault(str(name).removeprefix(WRAPPER), value) is not value:
            bare = str(name).removeprefix(WRAPPER)
            raise BadFileError(f"{path} holds both {bare} and {WRAPPER}{bare}: save one of them")
    return named


def load_plain_tensors(path: Path, contents: str) -> Any:  # noqa: ANN401  depends on the file
    """Load the tensors and plain values that PyTorch saved in a file, to the CPU.

    Args:
        path: the file.
        contents: name of the expected contents, for errors.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: the file is unreadable, or holds objects other than tensors and plain values.
    """
    with open_checked(path) as opened:
        file = BoundedReader(opened)
        try:
            check_strings(file)
            with warnings.catch_warnings(action="ignore"):  # about unusual pickles, which fail below
                return torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # the zip reader and the unpickler raise any exception on unreadable files
            raise BadFileError(f"{path} cannot be read as {contents} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if "TorchScript" in str(error):
        return "it is a TorchScript program: save the state_dict() of the module that it was made from"
    if isinstance(error, BadFileError):
        return str(error)
    if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds a Python object, {match[1]}: save the state_dict() of a module instead"
    return "is it complete?"


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into a module. Tensors of other parts, such as a classifier, are ignored.

    Args:
        module: the module.
        state: tensors by name. The counters that batch norms have since 2018 may be missing.
        source: file or address of the state dict, for errors.

    Raises:
        UserError: a parameter is missing, has another shape or holds values that are not finite, or the
            state dict is of a network with more layers.
    """
    wanted = module.state_dict()
    needed = {name for name in wanted if not name.endswith(COUNTER)}
    if missing := sorted(needed - state.keys()):
        raise UserError(
            f"{source} is not the weights file of {type(module).__name__}: "
            f"{len(missing)} of {len(needed)} parameters are missing, {missing[0]} the first"
        )
    if further := further_layers(needed, state):
        raise UserError(
            f"{source} is not the weights file of {type(module).__name__}: "
            f"it is of a larger network, with {len(further)} further parameters, {further[0]} the first"
        )
    for name in sorted(needed):
        if state[name].shape != wanted[name].shape:
            raise UserError(
                f"{source} is not the weights file of {type(module).__name__}: {name} has shape "
                f"{tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
            )
        if not state[name].is_floating_point() or state[name].layout != torch.strided:
            raise UserError(f"{source} is no weights file: {name} holds no real numbers, or sparse ones")
        if not torch.isfinite(state[name].to(wanted[name].dtype)).all():
            raise UserError(f"{source} is unreadable: {name} holds values that are not finite")
    module.load_state_dict({name: state[name] for name in needed}, strict=False)


def further_layers(needed: Collection[str], names: Iterable[str]) -> list[str]:
    """Return the names that differ from needed names only in the numbers of layers, sorted.

    A ResNet-18 would take a part of the weights of a ResNet-34, which has more layers of the same names and
    shapes. Counters of batch norms do not count.

    Args:
        needed: the names of the parameters of a module.
        names: the names in a state dict.
    """
    unnumbered = {LAYER_NUMBER.sub("", name) for name in needed}
    others = (name for name in names if name not in needed and not name.endswith(COUNTER))
    return sorted(name for name in others if LAYER_NUMBER.sub("", name) in unnumbered)


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the first characters of the SHA-256 of the names, types, shapes and values of tensors."""
    sha = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().contiguous()
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:DIGEST_CHARACTERS]


def module_digest(module: nn.Module) -> str:
    """Return the digest of the parameters and buffers of a module, without the counters of batch norms."""
    return digest({name: value for name, value in module.state_dict().items() if not name.endswith(COUNTER)})


def read_weights_array(path: Path) -> np.ndarray:
    """Read a .npy file as float32, without unpickling.

    Raises:
        UserError: the file is missing or unreadable, or holds values that are not finite real numbers.
    """
    try:
        array = read_array(path, (np.floating, np.integer))
    except FileNotFoundError as error:
        raise UserError(f"no PCA file at {path}") from error
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise BadFileError(f"{path} is unreadable: it holds values that are not finite")
    return array
