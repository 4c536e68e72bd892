"""Weight files: read safely, and checked against the modules that they are for."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utils.errors import UserError


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
        reason = error.strerror if isinstance(error, OSError) else "is it whole?"
        raise UserError(f"{path} cannot be read as a state dict of tensors ({reason})") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is no state dict: expected parameter names with a tensor each")
    if any(value.is_meta for value in state.values()):
        raise UserError(f"{path} holds tensors without values (on the device meta): save the weights again")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


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
        if not state[name].is_floating_point() or state[name].layout != torch.strided:
            raise UserError(f"{source} is no weights file: {name} holds no real numbers, or sparse ones")
        if not torch.isfinite(state[name]).all():
            raise UserError(f"{source} is damaged: {name} holds values that are not finite")
    module.load_state_dict({name: state[name] for name in needed}, strict=False)


def read_array(path: Path) -> np.ndarray:
    """Reads a .npy file as float32, without ever unpickling anything.

    Raises:
        UserError: the file is missing, damaged, or holds no real numbers or some that are not finite.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"no PCA file at {path}") from error
    except Exception as error:  # damaged headers make numpy's parser raise anything
        reason = error.strerror if isinstance(error, OSError) else "is it whole?"
        raise UserError(f"{path} cannot be read as an array of numbers ({reason})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UserError(f"{path} holds no array of real numbers")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{path} is damaged: it holds values that are not finite")
    return array
