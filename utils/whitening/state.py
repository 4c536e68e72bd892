"""Where the learning of a whitening stands, on disk: the statistics so far and what they are of."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from utils.data.landmark import SizedPictures
from utils.errors import UserError
from utils.files.writing import replace_file
from utils.saved_settings import check_same_settings
from utils.text import digest_of_names
from utils.whitening.pca import StreamingPCA


@dataclass
class PCAProgress:
    """How many pictures are done, and those among them that could not be decoded."""

    done: int = 0
    unreadable: list[str] = field(default_factory=list)


def picture_digest(pictures: SizedPictures) -> str:
    """What tells one list of pictures from another: their names, sizes and the lengths of the files."""
    told = (
        f"{path.name}/{height}x{width}/{path.stat().st_size}"
        for path, (height, width) in zip(pictures.paths, pictures.sizes, strict=True)
    )
    return digest_of_names(told)


def save_state(path: Path, pca: StreamingPCA, progress: PCAProgress, settings: Mapping[str, object]) -> None:
    """Writes all that a learning needs to go on."""
    about = json.dumps({"progress": asdict(progress), "settings": dict(settings)})
    with replace_file(path) as file:
        np.savez(file, about=np.array(about), **pca.state_dict())


def load_state(path: Path, settings: Mapping[str, object]) -> tuple[StreamingPCA, PCAProgress]:
    """Reads where a learning stood.

    Raises:
        UserError: there is no state, it is damaged, or it was saved with other settings.
    """
    if not path.is_file():
        raise UserError(f"nothing to resume: there is no {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            pca = StreamingPCA()
            pca.load_state_dict(arrays)
            saved, progress = about["settings"], PCAProgress(**about["progress"])
    except Exception as error:  # a damaged file can make the zip reader and the parsers raise anything
        raise UserError(f"{path} cannot be read as where a learning stood; is it whole?") from error
    check_same_settings(path, saved, settings)
    return pca, progress
