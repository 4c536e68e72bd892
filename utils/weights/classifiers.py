"""Linear classifiers of a backbone's features: a state dict, and a record with the names of the classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from utils.errors import BadFileError, UserError
from utils.file_names import CLASSIFIER_RECORD_SUFFIX
from utils.files.records import read_json, write_json
from utils.files.writing import replace_file
from utils.weights.state_dicts import read_state_dict

WEIGHT, BIAS = "fc.weight", "fc.bias"


class Classifier(NamedTuple):
    """A linear classifier of K classes."""

    weight: Tensor
    """(K, C) float32."""
    bias: Tensor
    """(K,) float32."""
    classes: list[str] | None = None
    """Names of the classes, by class index; None if they are unknown."""

    def state(self) -> dict[str, Tensor]:
        """Return the state dict, on the CPU."""
        return {WEIGHT: self.weight.cpu(), BIAS: self.bias.cpu()}


class ClassifierRecord(TypedDict):
    """Contents of the record beside a classifier; further keys are the report of its training."""

    classes: list[str]
    backbone: NotRequired[str]
    backbone_digest: NotRequired[str]
    """Digest of the weights of the backbone's layers, as `module_digest` computes it."""


def classifier_record(path: Path) -> Path:
    """Return the path of the record beside a classifier."""
    return path.with_suffix(CLASSIFIER_RECORD_SUFFIX)


def save_classifier(path: Path, classifier: Classifier, record: Mapping[str, object]) -> None:
    """Write a classifier, and before it its record, so that a classifier always has one.

    Raises:
        UserError: a file cannot be written.
    """
    write_json(classifier_record(path), {**record, "classes": classifier.classes})
    with replace_file(path) as file:
        torch.save(classifier.state(), file)


def read_classifier(path: Path, channels: int, made_for: Mapping[str, str]) -> Classifier:
    """Read a classifier, with the names of its classes if there is a record beside it.

    Args:
        path: the file of the state dict.
        channels: C, the channels of the backbone.
        made_for: `backbone` and `backbone_digest` as the record has them.

    Raises:
        UserError: the file or its record is unreadable, or was made for another backbone.
    """
    state = read_state_dict(path)
    classifier = checked_classifier(state, channels, str(path))
    record_path = classifier_record(path)
    try:
        record = read_json(record_path, ClassifierRecord)
    except FileNotFoundError:
        return classifier
    names = record["classes"]
    if len(names) != len(classifier.bias) or len(set(names)) != len(names):
        raise BadFileError(
            f"{record_path} names {len(set(names))} classes, but {path} has {len(classifier.bias)}"
        )
    for name, value in made_for.items():
        if record.get(name, value) != value:
            raise UserError(
                f"{path} was trained for {name} {record.get(name)}, not {value}: use that, or train another "
                "classifier by leaving out --classifier"
            )
    return classifier._replace(classes=names)


def checked_classifier(state: Mapping[str, Tensor], channels: int, source: str) -> Classifier:
    """Return the classifier in a state dict.

    Args:
        state: the state dict.
        channels: C, the channels of the backbone.
        source: where the state dict comes from, for errors.

    Raises:
        UserError: it holds no classifier for so many channels.
    """
    weight, bias = state.get(WEIGHT), state.get(BIAS)
    if weight is None or bias is None or bias.ndim != 1 or weight.shape != (len(bias), channels):
        raise UserError(f"{source} has no classifier: {WEIGHT} (K, {channels}), {BIAS} (K)")
    for name, tensor in ((WEIGHT, weight), (BIAS, bias)):
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise BadFileError(f"{source} has no classifier: {name} holds no real numbers, or sparse ones")
        if not torch.isfinite(tensor.float()).all():
            raise BadFileError(f"{source} is unreadable: {name} holds values that are not finite")
    return Classifier(weight.float(), bias.float())
