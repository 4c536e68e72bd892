"""What a descriptor depends on, beside its picture: descriptors that differ in any of it must never mix."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.backbones import BACKBONES
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN, weights_folder
from utils.saved_settings import METHOD
from utils.weights.networks import read_backbone_weights
from utils.weights.state_dicts import read_state_dict, read_weights_array

SETTINGS = ("backbone", "pooling", "whiten", "S", "L", "activation", "scales", "precision")

METHOD_VERSION = 2
"""Rises when the same options and weights come to give other descriptors: 2 resizes exactly as OpenCV does,
counts the regions of images at exact ties in float64 and gives regions without a cell no context."""

CHARACTERS = 16
"""Of a digest."""


def descriptor_settings(options: Mapping[str, object], weights_dir: Path) -> dict[str, object]:
    """The options that a descriptor depends on, and a digest of each part's weights.

    Digests are of the values as published, before anything is folded or rounded, so that they do not
    depend on the machine.

    Args:
        options: values by the options' names, those of SETTINGS among them; several poolings with commas
            between.
        weights_dir: the weights folder.

    Raises:
        UserError: a file of weights is missing or damaged.
    """
    settings = {METHOD: METHOD_VERSION} | {name: options[name] for name in SETTINGS}
    backbone = str(options["backbone"])
    folder = weights_folder(weights_dir, backbone)
    state, _ = read_backbone_weights(BACKBONES[backbone], weights_dir)
    settings["backbone weights"] = digest(state)
    poolings = set(str(options["pooling"]).split(","))
    if poolings == {"mac"}:
        del settings["L"]  # its one region is the whole map
    if "ra" in poolings:
        settings["attention weights"] = digest(read_state_dict(folder / ATTENTION_WEIGHTS))
    else:
        del settings["activation"]
    if options["whiten"]:
        settings["whitening"] = digest(
            {name: torch.from_numpy(read_weights_array(folder / name)) for name in (PCA_COMPONENTS, PCA_MEAN)}
        )
    return settings


def digest(state: Mapping[str, Tensor]) -> str:
    """The first characters of SHA-256 over the names, types, shapes and values of some tensors."""
    sha = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().contiguous()
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:CHARACTERS]
