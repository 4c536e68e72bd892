"""Region features of centre crops, computed once and kept on disk, from which the head trains in seconds."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import torch
from tqdm import tqdm

from models.attention_classifier import RegionFeatures
from utils.descriptors.keys import image_keys
from utils.errors import BadFileError, UserError
from utils.files.arrays import map_array
from utils.files.records import Setting, read_json
from utils.files.reserved_array import new_mapped_array
from utils.files.writing import replace_file, user_error_if_unwritable
from utils.images.loading import InputImage
from utils.text import digest_of_names

SAVED_EVERY = 32
"""Number of images between two saves; a killed run continues from the last save."""

REMOVE = "remove it and the files beside it whose names begin with its name, or name another file"


class FeaturesRecord(TypedDict):
    """Settings of the features and the progress of their computation."""

    settings: dict[str, Setting]
    done: int
    """Number of images whose features have been computed."""
    corrupt: list[int]
    """Indices of the unreadable images among them."""


class FeatureStore(NamedTuple):
    """Features of the images, (N, 2 R + 1, C) float16: maxima, means and context.

    The rows of unreadable images hold no features; `unreadable` lists their indices.
    """

    path: Path
    rows: np.ndarray
    unreadable: list[int]

    def read(self, indices: np.ndarray) -> RegionFeatures:
        """Return the features of some images, in float32.

        Raises:
            UserError: the features of an image are all zeros or not finite.
        """
        values = self.rows[indices].astype(np.float32)
        good = np.isfinite(values).all(axis=(1, 2)) & values.any(axis=(1, 2))
        if not good.all():
            index = int(indices[good.argmin()])
            raise BadFileError(f"{self.path} is unreadable: row {index} is all zeros or not finite; {REMOVE}")
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
    """Compute the features of images into a file, continue a partial file, or open a complete one.

    The file is named `<name>.part` until it is complete. A JSON file beside it records the progress and the
    settings.

    Args:
        path: the file, in NumPy's format.
        images: the images, in the order of the rows.
        extract_from: yields the features of each image from an index on; None for an unreadable image.
        made_with: settings that the features depend on.
        channels: C, the number of channels of the backbone.

    Raises:
        UserError: the file was made with other settings or for other images, is unreadable, was not written
            by this program, or cannot be written; or no image can be decoded.
    """
    count = len(images)
    settings = {**made_with, "images": images_digest(images)}
    part, record = path.with_name(path.name + ".part"), path.with_name(path.name + ".json")
    check_no_user_files(path, part, record)
    state: FeaturesRecord = {"settings": settings, "done": 0, "corrupt": []}
    rows = None
    with user_error_if_unwritable(path):
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
                    _write_record(record, state)  # before the features: without a record they are refused
                    rows = new_mapped_array(part, (count, *row.shape), np.float16)
                if row.shape != rows.shape[1:]:
                    raise BadFileError(f"{part} is unreadable: it has features of other regions; {REMOVE}")
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


def images_digest(images: Sequence[Path]) -> str:
    """Return a digest of the names and contents of images, in their order.

    It does not depend on the times of the files and on the folders above the last one: a set can be copied.
    """
    names = [f"{image.parent.name}/{image.name}" for image in images]
    keys = (key.split("\0") for key in image_keys([InputImage(image) for image in images], names))
    return digest_of_names(f"{name}/{size}/{contents}" for name, size, _, contents, _ in keys)


def _half_precision(image: Path, features: RegionFeatures) -> np.ndarray:
    """Return the features of one image, (2 R + 1, C) float16.

    Raises:
        UserError: the features are not finite in float16.
    """
    row = torch.cat([features.maxima[0], features.means[0], features.context]).half()
    if not torch.isfinite(row).all():
        raise UserError(
            f"the features of {image} are not finite in float16: train without --precompute, or with other "
            "weights of the backbone"
        )
    return row.cpu().numpy()


def _read_record(path: Path, record: Path, settings: Mapping[str, object], count: int) -> FeaturesRecord:
    """Read the record of the features.

    Raises:
        UserError: the features were made with other settings, or the record is unreadable.
    """
    state = read_json(record, FeaturesRecord)
    saved = {**dict.fromkeys(settings), **state["settings"]}  # earlier versions saved no settings of None
    if saved != settings:
        differing = [name for name in settings if saved.get(name) != settings[name]]
        raise UserError(
            f"{path} was made with other settings ({', '.join(differing)}): remove it or name another file"
            if differing
            else f"{record} is unreadable: it has further settings; {REMOVE}"
        )
    if not 0 <= state["done"] <= count or not all(0 <= index < count for index in state["corrupt"]):
        raise BadFileError(f"{record} is unreadable: it counts more than the {count} images; {REMOVE}")
    if path.is_file() and state["done"] < count:
        raise BadFileError(f"{path} is there, but {record.name} says that it is not complete; {REMOVE}")
    # A run that was killed before its next save may have recorded unreadable images that are read again.
    state["corrupt"] = sorted({index for index in state["corrupt"] if index < state["done"]})
    return state


def _mapped(path: Path, count: int, channels: int, mode: Literal["r", "r+"]) -> np.memmap:
    try:
        rows = map_array(path, (np.float16,), (count, None, channels), mode)
    except BadFileError as error:
        raise BadFileError(f"{error}; {REMOVE}") from error
    if rows.shape[1] < 3 or rows.shape[1] % 2 == 0:
        raise BadFileError(f"{path} is unreadable: it holds no features of regions; {REMOVE}")
    return rows


def check_no_user_files(path: Path, part: Path, record: Path) -> None:
    """Check that this program wrote the existing features, partial features and record, if any.

    Features that this program wrote have a record beside them.

    Raises:
        UserError: a file was not written by this program.
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
