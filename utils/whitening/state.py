"""Saved progress of learning a whitening: the statistics of the PCA and the settings of the run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from utils.data.landmark import SizedImages
from utils.errors import BadFileError, UserError, advising
from utils.files.arrays import Shape, read_arrays
from utils.files.records import Setting, parse_json
from utils.files.writing import replace_file
from utils.saved_settings import check_same_settings
from utils.text import digest_of_names
from utils.whitening.pca import STATE, StreamingPCA


@dataclass
class PCAProgress:
    """Number of finished images, and paths of the unreadable images among them."""

    done: int = 0
    unreadable: list[str] = field(default_factory=list)


class PCARecord(TypedDict):
    """JSON record in the file of the arrays."""

    progress: PCAProgress
    settings: dict[str, Setting]


def image_digest(images: SizedImages) -> str:
    """Return a digest of the names, sizes and file lengths of images."""
    descriptions = (
        f"{path.name}/{height}x{width}/{path.stat().st_size}"
        for path, (height, width) in zip(images.paths, images.sizes, strict=True)
    )
    return digest_of_names(descriptions)


def save_state(path: Path, pca: StreamingPCA, progress: PCAProgress, settings: Mapping[str, object]) -> None:
    """Write the state from which the learning is resumed.

    Raises:
        UserError: the file cannot be written.
    """
    about = json.dumps({"progress": asdict(progress), "settings": dict(settings)})
    with replace_file(path) as file:
        np.savez(file, allow_pickle=False, about=np.array(about), **pca.state_dict())


def load_state(
    path: Path, settings: Mapping[str, object], *, channels: int, images: int
) -> tuple[StreamingPCA, PCAProgress]:
    """Read the state of a learning.

    Args:
        path: file of the state.
        settings: settings of the current run.
        channels: C, the number of channels of the vectors.
        images: number of images of the current run.

    Raises:
        UserError: there is no state, it is unreadable, or it was saved with other settings.
    """
    if not path.is_file():
        raise UserError(f"nothing to resume: there is no {path}")
    with advising("remove it and start anew"):
        arrays = read_arrays(path, {"about": ((np.str_,), ()), **state_arrays(channels)})
        about = parse_json(path, str(arrays.pop("about")), PCARecord)
    check_same_settings(path, about["settings"], settings)
    progress = PCAProgress(**about["progress"])  # type: ignore[arg-type]  # parse_json has compared its fields
    if not len(progress.unreadable) <= progress.done <= images or progress.done < 0:
        raise BadFileError(
            f"{path} is unreadable: {progress.done} of {images} images are done; remove it and start anew"
        )
    pca = StreamingPCA(channels)
    with advising(f"remove {path} and start anew"):
        pca.load_state_dict(arrays)
    return pca, progress


def state_arrays(channels: int) -> dict[str, tuple[tuple[type[np.generic], ...], Shape]]:
    """Return the number types and shapes of the arrays in the state of a StreamingPCA."""
    shapes: dict[str, Shape] = {
        "count": (),
        "mean": (channels,),
        "scatter": (channels, channels),
        "eps": (),
        "rows": (None, channels),
    }
    return {name: ((np.floating, np.integer), shapes[name]) for name in STATE}
