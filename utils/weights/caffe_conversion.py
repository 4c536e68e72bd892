"""Conversion of another import of the Caffe ResNet-101, for RGB images, into the authors' file.

The import of cnnimageretrieval-pytorch numbers torchvision's layers and has no classifier. It is meant for
RGB images with torchvision's mean and scale. For that, importers of Caffe weights reverse the input channels
of the first convolution and multiply them by the scale. Here both are undone, for BGR images without scale;
the other tensors stay the same.

torchvision's mean is 0.005, 0.499 and 0.409 grey levels below Caffe's (red, green, blue). Importers leave the
batch norm after the first convolution as Caffe has it, so it fits Caffe's mean, and nothing makes up for the
difference here. The converted network computes what the imported one, with torchvision's mean, computes of
images that are darker by this difference.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.backbones.registry import BACKBONES, DEFAULT_BACKBONE
from utils.errors import BadFileError
from utils.files.writing import make_folder, replace_file
from utils.weights.state_dicts import fill, read_state_dict

IMPORT_PREPROCESSING = "resnet101"
"""Backbone whose channel order and scale the imported weights expect."""

MODULES = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}
"""Numbers of torchvision's layers to their names; 2 and 3 are ReLU and max pool, without parameters."""

FIRST_CONVOLUTION = "conv1.weight"


def convert_features(path: Path, target: Path) -> None:
    """Convert a file of the import and write it, as a state dict without classifier.

    Args:
        path: state dict of the import.
        target: the file to write; it appears when it is complete.

    Raises:
        UserError: the file is missing or no import of ResNet-101, or the target cannot be written.
    """
    state = for_bgr_images(read_state_dict(path), str(path))
    features = BACKBONES[DEFAULT_BACKBONE].features()
    fill(features, state, str(path))
    make_folder(target.parent)
    with replace_file(target) as file:
        torch.save(features.state_dict(), file)


def for_bgr_images(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the state dict with torchvision's names, for BGR images without scale.

    Args:
        state: tensors by the names of the import.
        source: the file of the state dict, for errors.

    Raises:
        UserError: the first convolution is missing or has another shape, or there are other layers.
    """
    converted = {}
    for name, tensor in state.items():
        number, _, parameter = name.partition(".")
        if number not in MODULES:
            raise BadFileError(f"{source} is not the import of ResNet-101 for RGB images: it holds {name}")
        converted[f"{MODULES[number]}.{parameter}"] = tensor
    weight = converted.get(FIRST_CONVOLUTION)
    if weight is None or weight.shape[1:] != (3, 7, 7) or weight.layout != torch.strided:
        raise BadFileError(f"{source} is not the import of ResNet-101 for RGB images: no 0.weight for them")
    red_green_blue = torch.tensor(BACKBONES[IMPORT_PREPROCESSING].scale, dtype=torch.float64)
    unscaled = weight.double() / red_green_blue.reshape(3, 1, 1)
    converted[FIRST_CONVOLUTION] = unscaled.flip(1).float()
    return converted
