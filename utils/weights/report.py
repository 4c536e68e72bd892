"""Report on a weights folder: shapes and checksum of each of the authors' files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from models.backbones.registry import AUTHORS_BACKBONE, DEFAULT_BACKBONE, backbone_spec
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN
from utils.weights.networks import load_attention, load_backbone, load_whitening


def report_weights(folder: Path) -> Iterator[str]:
    """Load the authors' files that are there into their modules, and yield a line about each file.

    Raises:
        UserError: a file is unreadable or does not fit its module.
    """
    spec = backbone_spec(DEFAULT_BACKBONE)
    if (folder / AUTHORS_BACKBONE).exists():
        parameters = sum(parameter.numel() for parameter in load_backbone(spec, folder).parameters())
        yield _line(folder / AUTHORS_BACKBONE, f"{parameters:,} parameters of the backbone")
    if (folder / ATTENTION_WEIGHTS).exists():
        head = load_attention(folder / ATTENTION_WEIGHTS, spec.channels, "tanh")
        yield _line(
            folder / ATTENTION_WEIGHTS,
            ", ".join(f"{name} {tuple(value.shape)}" for name, value in head.state_dict().items()),
        )
    if (folder / PCA_COMPONENTS).exists() and (folder / PCA_MEAN).exists():
        whitening = load_whitening(folder, spec.channels)
        yield _line(folder / PCA_COMPONENTS, str(tuple(whitening.components.shape)))
        yield _line(folder / PCA_MEAN, str(tuple(whitening.negative_mean.shape)))


def _line(path: Path, contents: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name}: {contents}; sha256 {digest}"
