"""Region features of fixed crops, computed once and kept on disk, from which the head trains in seconds."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import torch
from tqdm import tqdm

from models.attention_classifier import RegionFeatures
from utils.errors import BadFileError, UserError
from utils.files.arrays import map_array
from utils.files.records import Setting, read_json
from utils.files.reserved_array import new_mapped_array
from utils.files.writing import replace_file, told_of
from utils.text import digest_of_names

SAVED_EVERY = 32
"""Images after which a killed run does not have to begin again."""


REMOVE = "remove it and what lies beside it under its name, or name another file"


class FeaturesRecord(TypedDict):
    """Settings of the features and the progress of their computation."""

    settings: dict[str, Setting]
    done: int
    """Images whose features are in the file."""
    corrupt: list[int]
    """Indices of those among them that cannot be decoded."""


class FeatureStore(NamedTuple):
    """Features by image, (N, 2 R + 1, C) float16: maxima, means, context; rows of corrupt ones."""

    path: Path
    rows: np.ndarray
    corrupt: list[int]

    def read(self, indices: np.ndarray) -> RegionFeatures:
        """Return the features of some images, in float32.

        Raises:
            UserError: those of an image are all zeros or not finite.
        """
        values = self.rows[indices].astype(np.float32)
        good = np.isfinite(values).all(axis=(1, 2)) & values.any(axis=(1, 2))
        if not good.all():
            index = int(indices[good.argmin()])
            raise BadFileError(f"{self.path} is damaged: row {index} is all zeros or not finite; {REMOVE}")
        rows = torch.from_numpy(values)
        regions = (rows.shape[1] - 1) // 2
        return RegionFeatures(rows[:, :regions], rows[:, regions : 2 * regions], rows[:, -1])


def precompute(
    path: Path,
    images: Sequence[Path],
    extract_from: Callable[[int], Iterable[RegionFeatures | None]],
    made_with: Mapping[str, Setting],
    *,
    channels: int,
) -> FeatureStore:
    """Fills a file with the features of images, or goes on where it was, or finds it complete.

    The file appears under its name once it is complete; until then it is `<name>.part`. A JSON file beside it
    says how far it is and what it was made with.

    Args:
        path: the file, in numpy's format.
        images: whose features; the file is for these alone, in this order.
        extract_from: the features of each image from an index on; None for an unreadable image.
        made_with: what else the features depend on.
        channels: C.

    Raises:
        UserError: the file was made with other settings, is damaged, is the user's own, or cannot be written.
    """
    count = len(images)
    names = digest_of_names(f"{image.parent.name}/{image.name}" for image in images)
    settings = {**made_with, "images": names}
    part, record = path.with_name(path.name + ".part"), path.with_name(path.name + ".json")
    check_own_files(path, part, record)
    state: FeaturesRecord = {"settings": settings, "done": 0, "corrupt": []}
    rows = None
    with told_of(path):
        if record.is_file() and (path.is_file() or part.is_file()):
            state = _read_record(path, record, settings, count)
            if state["done"]:
                made = path if path.is_file() else part
                rows = _mapped(made, count, channels, "r" if state["done"] == count else "r+")
        bar = tqdm(
            extract_from(state["done"]), "features", count, unit="image", initial=state["done"], disable=None
        )
        for index, features in enumerate(bar, start=state["done"]):
            if features is None:
                state["corrupt"].append(index)
            else:
                row = _half_precision(images[index], features)
                if rows is None:
                    _write_record(record, state)  # before the features, by which they are known as ours
                    rows = new_mapped_array(part, (count, *row.shape), np.float16)
                if row.shape != rows.shape[1:]:
                    raise BadFileError(f"{part} is damaged: it has features of other regions; {REMOVE}")
                rows[index] = row
            if rows is not None and (index + 1 == count or (index + 1) % SAVED_EVERY == 0):
                rows.flush()
                state["done"] = index + 1
                _write_record(record, state)
        if part.is_file() and not path.is_file() and state["done"] == count:
            part.replace(path)
    if rows is None:
        raise UserError(f"none of the {count} images can be decoded")
    return FeatureStore(path, _mapped(path, count, channels, "r"), state["corrupt"])


def _half_precision(image: Path, features: RegionFeatures) -> np.ndarray:
    """Return the features of one image, (2 R + 1, C) float16.

    Raises:
        UserError: they are not finite in that type.
    """
    row = torch.cat([features.maxima[0], features.means[0], features.context]).half()
    if not torch.isfinite(row).all():
        raise UserError(
            f"the features of {image} are not finite in float16: train without --precompute, or with other "
            "weights of the backbone"
        )
    return row.cpu().numpy()


def _read_record(path: Path, record: Path, settings: Mapping[str, object], count: int) -> FeaturesRecord:
    """Read how far the features are.

    Raises:
        UserError: they were made with other settings, or the record is damaged.
    """
    state = read_json(record, FeaturesRecord)
    if state["settings"] != settings:
        differing = [name for name in settings if state["settings"].get(name) != settings[name]]
        raise UserError(
            f"{path} was made with another {', '.join(differing)}: remove it or name another"
            if differing
            else f"{record} is damaged: it has further settings; {REMOVE}"
        )
    if not 0 <= state["done"] <= count or not all(0 <= index < count for index in state["corrupt"]):
        raise BadFileError(f"{record} is damaged: it counts more than the {count} images; {REMOVE}")
    if path.is_file() and state["done"] < count:
        raise BadFileError(f"{path} is there, but {record.name} says that it is not complete; {REMOVE}")
    # A run that was killed before it saved features can have noted images that come again.
    state["corrupt"] = sorted({index for index in state["corrupt"] if index < state["done"]})
    return state


def _mapped(path: Path, count: int, channels: int, mode: Literal["r", "r+"]) -> np.memmap:
    try:
        rows = map_array(path, (np.float16,), (count, None, channels), mode)
    except BadFileError as error:
        raise BadFileError(f"{error}; {REMOVE}") from error
    if rows.shape[1] < 3 or rows.shape[1] % 2 == 0:
        raise BadFileError(f"{path} is damaged: it holds no features of regions; {REMOVE}")
    return rows


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
        try:
            read_json(record, FeaturesRecord)
        except BadFileError as error:
            raise BadFileError(
                f"{record} is not the record of precomputed features ({error}): {advice}"
            ) from error
        return
    for file in (path, part):
        if file.exists():
            raise UserError(f"{file} has no record {record.name} beside it, as this program writes: {advice}")


def _write_record(path: Path, state: FeaturesRecord) -> None:
    with replace_file(path) as file:
        file.write(json.dumps(state).encode())
