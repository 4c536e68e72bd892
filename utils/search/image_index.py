"""An index of a folder of images: a store of their descriptors, and a catalogue of which of them count.

The catalogue is written last and appears whole: whenever an indexing is killed, the index is the one that was
there before, and what was described meanwhile is found in the store by the next one.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from models.attention import Activation
from utils.descriptors.keys import image_key
from utils.descriptors.rows import StoredRows
from utils.descriptors.store import DescriptorStore, open_store
from utils.errors import BadFileError, UnreadableFileError, UserError
from utils.file_names import CATALOGUE, INDEX_STORE
from utils.files.records import read_json
from utils.files.writing import replace_file
from utils.images.loading import InputImage
from utils.options.shared import PoolingName, Precision, StorePrecision
from utils.search.exact import exact_search

INDEX_INSTRUCTIONS = "python Search_Images.py index FOLDER makes one"

REINDEX_INSTRUCTIONS = "index the images again, which is quick"

LARGEST_STORE_RATIO = 2
"""The store is written anew when it holds so many times as many descriptors as count."""


class Match(NamedTuple):
    """An image that was found: its rank from 1, its similarity to the query, -1..1, and its file."""

    rank: int
    similarity: float
    path: Path


class SavedSettings(TypedDict):
    """Settings of descriptors that a query needs; the others are read with them."""

    backbone: str
    pooling: PoolingName
    whiten: bool
    S: int
    L: NotRequired[int]
    activation: NotRequired[Activation]
    scales: list[float]
    precision: Precision


class CatalogueRecord(TypedDict):
    """Contents of a catalogue's file."""

    folder: str
    keys: list[str]
    settings: SavedSettings
    precision: StorePrecision


class Catalogue(NamedTuple):
    """What an index is of: a folder, its images' keys, the descriptors' settings and their number type."""

    folder: Path
    keys: list[str]
    settings: dict[str, object]
    precision: StorePrecision


@dataclass(frozen=True)
class ImageIndex:
    """Images of a folder and their descriptors."""

    folder: Path
    """What was indexed."""
    names: list[str]
    """Each image's path in the folder."""
    keys: list[str]
    """What the store calls them, which changes when they do."""
    rows: StoredRows
    """(N, D)."""
    settings: dict[str, object]
    """What the descriptors were made with: options by name, and digests of weights."""
    location: Path
    """The folder of the index itself."""

    def path(self, place: int) -> Path:
        """The file of an image."""
        return self.folder / self.names[place]

    def index_of(self, image: InputImage) -> int | None:
        """The place of an image that the index holds as it is now, or None."""
        try:
            name = str(image.path.resolve().relative_to(self.folder.resolve()))
        except (ValueError, OSError, RuntimeError):  # the last of links that lead to each other
            return None
        key = image_key(image, name)
        return self.keys.index(key) if key in self.keys else None

    def changed(self, places: Sequence[int]) -> int:
        """How many of these images have gone or changed since they were indexed."""
        now = [image_key(InputImage(self.path(place)), self.names[place]) for place in places]
        return sum(key != self.keys[place] for key, place in zip(now, places, strict=True))

    def nearest(
        self, descriptor: np.ndarray, count: int, query_index: int | None = None
    ) -> list[tuple[int, float]]:
        """Places and similarities of the most similar images.

        Args:
            descriptor: (D,).
            count: how many; all where there are fewer.
            query_index: index of the query image, which always comes first; None if it is not indexed.

        Returns:
            By falling similarity, at most 1, ties in the order of the names.
        """
        places, similar = exact_search(descriptor[np.newaxis], self.rows, count)
        # Rounding, above all to float16, can give more than the 1 that vectors of length 1 allow.
        found = list(zip(places[0].tolist(), similar[0].clip(max=1).tolist(), strict=True))
        if query_index is None or not found:
            return found
        # Equal images of different batches differ by rounding, and one may be nearer to it than it is itself.
        own = float(np.float32(self.rows[np.array([query_index])][0].astype(np.float64) @ descriptor))
        first = (query_index, max(min(own, 1.0), found[0][1]))
        return [first, *(pair for pair in found if pair[0] != query_index)][: len(found)]


def read_index(folder: Path) -> ImageIndex:
    """Reads an index; while it is being written anew, the one before or the new one.

    Args:
        folder: the index's own.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        return _read_index(folder)
    except UserError:
        return _read_index(folder)  # its catalogue and its store may have been replaced between our looks


def _read_index(folder: Path) -> ImageIndex:
    catalogue = read_catalogue(folder)
    store = open_store(folder / INDEX_STORE, catalogue.settings, precision=catalogue.precision)
    if any(key not in store for key in catalogue.keys):
        raise _damaged(folder)
    names = [key.split("\0")[0] for key in catalogue.keys]
    rows = store.rows(catalogue.keys)
    return ImageIndex(catalogue.folder, names, catalogue.keys, rows, catalogue.settings, folder)


def read_catalogue(folder: Path) -> Catalogue:
    """Reads which images an index is of, without their descriptors.

    Args:
        folder: the index's own.

    Raises:
        UserError: there is no index, or its catalogue is damaged.
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
        raise _damaged(folder)
    return Catalogue(Path(record["folder"]), record["keys"], dict(record["settings"]), record["precision"])


def _is_path(text: str) -> bool:
    """Return whether a text can name a file or a folder."""
    try:
        return bool(os.fsencode(text)) and "\0" not in text
    except UnicodeEncodeError:  # JSON can hold half a character, which no file system takes
        return False


def _damaged(folder: Path) -> UserError:
    return UserError(f"{folder / CATALOGUE} is damaged: {REINDEX_INSTRUCTIONS}")


def write_index(
    folder: Path,
    images: Path,
    keys: Sequence[str],
    settings: Mapping[str, object],
    store: DescriptorStore,
) -> None:
    """Makes these images the index, and tidies the store where most of it no longer counts.

    Args:
        folder: the index's own.
        images: the folder that was indexed.
        keys: of its images, in the order of their names, all of them in the store.
        settings: what the descriptors were made with.
        store: where they are.

    Raises:
        UserError: the index cannot be written.
    """
    told = {
        "folder": str(images.resolve()),
        "settings": settings,
        "precision": store.precision,
        "keys": keys,
    }
    with replace_file(folder / CATALOGUE) as file:
        file.write(json.dumps(told).encode())
    if store.stored > LARGEST_STORE_RATIO * len(keys):
        store.compact(keys)


def check_same_folder(folder: Path, images: Path) -> None:
    """Checks that an index, if there is one, is of these images, or of a folder that has gone or moved.

    Raises:
        UserError: it is of another folder.
    """
    try:
        indexed = read_catalogue(folder).folder
    except UserError:
        return  # there is none, or one that is written anew
    if indexed != images.resolve() and indexed.exists():
        raise UserError(f"{folder} is the index of {indexed}: name another --index for {images}")
