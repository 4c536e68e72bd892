"""Region features of fixed crops, computed once and kept on disk, from which the head trains in seconds."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from models.attention_classifier import RegionFeatures
from utils.errors import UserError
from utils.files.reserved_array import new_mapped_array
from utils.files.writing import replace_file, told_of
from utils.text import digest_of_names

SAVED_EVERY = 32
"""Pictures after which a killed run does not have to begin again."""


class FeatureStore(NamedTuple):
    """Features by picture, (N, 2 R + 1, C) float16: maxima, means, context; rows of corrupt ones."""

    rows: np.ndarray
    corrupt: list[int]

    def read(self, places: np.ndarray) -> RegionFeatures:
        """The features of some pictures, in float32."""
        rows = torch.from_numpy(self.rows[places].astype(np.float32))
        regions = (rows.shape[1] - 1) // 2
        return RegionFeatures(rows[:, :regions], rows[:, regions : 2 * regions], rows[:, -1])


def precompute(
    path: Path,
    pictures: Sequence[Path],
    extract_from: Callable[[int], Iterable[RegionFeatures | None]],
    made_with: Mapping[str, object],
) -> FeatureStore:
    """Fills a file with the features of pictures, or goes on where it was, or finds it complete.

    The file appears under its name once it is complete; until then it is `<name>.part`. A JSON file beside it
    says how far it is and what it was made with.

    Args:
        path: the file, in numpy's format.
        pictures: whose features; the file is for these alone, in this order.
        extract_from: the features, each of one picture, from some place on; None for a corrupt one.
        made_with: what else the features depend on.

    Raises:
        UserError: the file was made with other settings, is the user's own, or cannot be written.
    """
    count = len(pictures)
    names = digest_of_names(f"{picture.parent.name}/{picture.name}" for picture in pictures)
    settings = {**made_with, "pictures": names}
    part, record = path.with_name(path.name + ".part"), path.with_name(path.name + ".json")
    check_own_files(path, part, record)
    state = {"settings": settings, "done": 0, "corrupt": []}
    with told_of(path):
        if record.is_file() and (path.is_file() or part.is_file()):
            state = json.loads(record.read_text())
            if state["settings"] != settings:
                differing = [name for name in settings if state["settings"].get(name) != settings[name]]
                raise UserError(
                    f"{path} was made with another {', '.join(differing)}: remove it or name another"
                )
        rows = None
        if state["done"]:
            rows = np.load(path if path.is_file() else part, mmap_mode="r" if path.is_file() else "r+")
        bar = tqdm(
            extract_from(state["done"]), "features", count, unit="image", initial=state["done"], disable=None
        )
        for place, features in enumerate(bar, start=state["done"]):
            if features is None:
                state["corrupt"].append(place)
            else:
                row = torch.cat([features.maxima[0], features.means[0], features.context]).cpu().numpy()
                if rows is None:
                    shape = (count, *row.shape)
                    _write_record(record, state)  # before the features, by which they are known as ours
                    rows = new_mapped_array(part, shape, np.float16)
                rows[place] = row
            if rows is not None and (place + 1 == count or (place + 1) % SAVED_EVERY == 0):
                rows.flush()
                state["done"] = place + 1
                _write_record(record, state)
        if part.is_file() and state["done"] == count:
            part.replace(path)
    if rows is None:
        raise UserError(f"none of the {count} pictures can be decoded")
    return FeatureStore(np.load(path, mmap_mode="r"), state["corrupt"])


def check_own_files(path: Path, part: Path, record: Path) -> None:
    """Check that no file of the user is in the place of the features, their unfinished part or their record.

    Features are known by the record beside them, which only this program writes.

    Raises:
        UserError: a file that is there was not written by this program.
    """
    advice = "move it away, or name another file for the features"
    for file in (path, part, record):
        if os.path.lexists(file) and not file.is_file():
            raise UserError(f"{file} is not a regular file: {advice}")
    if record.exists():
        if not _is_record(record):
            raise UserError(f"{record} is not the record of precomputed features: {advice}")
        return
    for file in (path, part):
        if file.exists():
            raise UserError(f"{file} has no record {record.name} beside it, as this program writes: {advice}")


def _is_record(path: Path) -> bool:
    try:
        state = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(state, dict) and {"settings", "done", "corrupt"} <= state.keys()


def _write_record(path: Path, state: Mapping[str, object]) -> None:
    with replace_file(path) as file:
        file.write(json.dumps(state).encode())
