"""Catalogue of an index: the folder, the keys of its images, and the settings of their descriptors.

The catalogue is written last, in one step. If indexing is killed, the previous index remains valid, and the
next run reuses the descriptors that are already in the store.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

from models.poolings.attention_head import Activation
from models.poolings.registry import PoolingName
from utils.descriptors.store import LARGEST_STORE_RATIO, DescriptorStore
from utils.errors import BadFileError, UnreadableFileError, UserError
from utils.file_names import CATALOGUE
from utils.files.reading import read_bytes
from utils.files.records import read_json
from utils.files.writing import replace_file
from utils.options.shared import Precision, StorePrecision

INDEX_INSTRUCTIONS = "create it with python Search_Images.py index FOLDER"

REINDEX_INSTRUCTIONS = "index the images again, which is quick"


class SavedSettings(TypedDict):
    """Settings of the descriptors that a query needs; other keys are allowed."""

    backbone: str
    pooling: PoolingName
    whiten: bool
    S: int
    L: NotRequired[int]
    activation: NotRequired[Activation]
    gem_p: NotRequired[float]
    scales: list[float]
    precision: Precision


class CatalogueRecord(TypedDict):
    """Contents of the catalogue file."""

    folder: str
    keys: list[str]
    settings: SavedSettings
    precision: StorePrecision


class Catalogue(NamedTuple):
    """The indexed folder, the keys of its images, and the settings and number type of the descriptors."""

    folder: Path
    keys: list[str]
    settings: dict[str, object]
    precision: StorePrecision


def read_catalogue(folder: Path) -> Catalogue:
    """Read the catalogue of an index, without the descriptors.

    Args:
        folder: folder of the index.

    Raises:
        UserError: the index does not exist, or its catalogue is unreadable or not valid.
    """
    path = folder / CATALOGUE
    try:
        record = read_json(path, CatalogueRecord)
    except FileNotFoundError as error:
        raise UserError(f"no index at {folder}: {INDEX_INSTRUCTIONS}") from error
    except UnreadableFileError:
        raise
    except BadFileError as error:
        raise BadFileError(f"{error}; {REINDEX_INSTRUCTIONS}") from error
    names = [key.split("\0")[0] for key in record["keys"]]
    if not all(map(_is_path, [record["folder"], *names])):
        raise invalid_catalogue(folder)
    return Catalogue(Path(record["folder"]), record["keys"], dict(record["settings"]), record["precision"])


def _is_path(text: str) -> bool:
    """Return True if a text can name a file or folder."""
    try:
        return bool(os.fsencode(text)) and "\0" not in text
    except UnicodeEncodeError:  # JSON strings can contain lone surrogates
        return False


def invalid_catalogue(folder: Path) -> UserError:
    """Return an error for the catalogue of an index, with what to do."""
    return UserError(f"{folder / CATALOGUE} is not valid: {REINDEX_INSTRUCTIONS}")


def write_index(
    folder: Path,
    images: Path,
    keys: Sequence[str],
    settings: Mapping[str, object],
    store: DescriptorStore,
) -> None:
    """Write the catalogue of an index, and compact the store if most of its descriptors are unused.

    Args:
        folder: folder of the index.
        images: folder that was indexed.
        keys: keys of its images, in the order of their names; all must be in the store.
        settings: settings of the descriptors.
        store: the descriptor store.

    Raises:
        UserError: the index cannot be written.
    """
    catalogue = {
        "folder": str(images.resolve()),
        "settings": settings,
        "precision": store.precision,
        "keys": keys,
    }
    contents = json.dumps(catalogue).encode()
    if not _has_contents(folder / CATALOGUE, contents):  # lookup files stay valid if it is not replaced
        with replace_file(folder / CATALOGUE) as file:
            file.write(contents)
    if store.stored > LARGEST_STORE_RATIO * len(keys):
        store.compact(keys)


def _has_contents(path: Path, contents: bytes) -> bool:
    try:
        return read_bytes(path) == contents
    except (FileNotFoundError, UserError):
        return False


def check_same_folder(folder: Path, images: Path) -> None:
    """Check that an index, if it exists, does not belong to another existing folder.

    Args:
        folder: folder of the index.
        images: folder to be indexed.

    Raises:
        UserError: the index belongs to another folder.
    """
    try:
        indexed = read_catalogue(folder).folder
    except UserError:
        return  # there is no index, or it will be replaced
    if indexed != images.resolve() and indexed.exists():
        raise UserError(f"{folder} is the index of {indexed}: name another --index for {images}")
