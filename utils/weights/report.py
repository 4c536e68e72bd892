"""Report on a weights folder: shapes and checksum of each of the authors' files, which are checked to fit."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from models.backbones.registry import AUTHORS_BACKBONE, DEFAULT_BACKBONE, backbone_spec
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN
from utils.weights.networks import load_attention, load_backbone, load_whitening


def report_weights(folder: Path) -> Iterator[str]:
    """Checks the authors' four files against the modules that they are for, and tells of each.

    Raises:
        UserError: one is missing, damaged or does not fit.
    """
    entry = backbone_spec(DEFAULT_BACKBONE)
    backbone = load_backbone(entry, folder)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    yield _line(folder / AUTHORS_BACKBONE, f"{parameters:,} parameters of the backbone")
    head = load_attention(folder / ATTENTION_WEIGHTS, entry.channels, "tanh")
    yield _line(
        folder / ATTENTION_WEIGHTS,
        ", ".join(f"{name} {tuple(value.shape)}" for name, value in head.state_dict().items()),
    )
    whitening = load_whitening(folder, entry.channels)
    yield _line(folder / PCA_COMPONENTS, str(tuple(whitening.components.shape)))
    yield _line(folder / PCA_MEAN, str(tuple(whitening.negative_mean.shape)))


def _line(path: Path, what: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name}: {what}; sha256 {digest}"
