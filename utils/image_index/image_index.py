"""Index of a folder of images: a descriptor store, and a catalogue of the images that are in the index."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.descriptors.keys import image_key
from utils.descriptors.rows import StoredRows
from utils.descriptors.shards import MappedShards
from utils.descriptors.store import open_store
from utils.errors import UserError
from utils.file_names import CATALOGUE, INDEX_STORE
from utils.image_index.approximate_index import ApproximateIndex, read_approximate
from utils.image_index.catalogue import invalid_catalogue, read_catalogue
from utils.image_index.index_lookup import Names, index_versions, read_lookup, write_lookup
from utils.images.loading import InputImage
from utils.search.exact import top_rows
from utils.search.similarity import compute_similarities, first_indices

CANDIDATES_PER_MATCH = 5
"""Images of the approximate index that are compared exactly, per match."""

QUERIES = 256
"""Queries per pass over the index, which limits the memory."""


class Match(NamedTuple):
    """A retrieved image: its rank from 1, its similarity to the query, -1..1, and its file."""

    rank: int
    similarity: float
    path: Path


class QueryMatches(NamedTuple):
    """A query and its matches, in the order of their ranks."""

    query: InputImage
    matches: list[Match]


@dataclass(frozen=True)
class ImageIndex:
    """Index of the images of a folder, with their descriptors."""

    folder: Path
    """Folder that was indexed."""
    names: Sequence[str]
    """Path of each image, relative to the folder."""
    keys: Sequence[str]
    """Key of each image in the store, which changes when the image changes."""
    rows: StoredRows
    """Descriptors, (N, D)."""
    settings: dict[str, object]
    """Settings of the descriptors: options by name, and digests of weights."""
    location: Path | str
    """Folder or collection of the index, for messages."""
    version: str | None = None
    """Version of the catalogue, see `file_version`."""

    @cached_property
    def approximate(self) -> ApproximateIndex | None:
        """The approximate index of these images, or None if there is none.

        Raises:
            UserError: FAISS is not installed.
        """
        if not isinstance(self.location, Path):
            return None
        return read_approximate(self.location, self.keys, self.settings, self.version)

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        return self.folder / self.names[index]

    def index_of(self, image: InputImage) -> int | None:
        """Return the index of an image, or None if the image is not indexed or has changed."""
        name = name_in(self.folder, image.path)
        if name is None:
            return None
        try:
            return self.keys.index(image_key(image, name))
        except ValueError:
            return None

    def count_changed(self, indices: Sequence[int]) -> int:
        """Return the number of these images that were deleted or changed after indexing."""
        keys = [image_key(InputImage(self.path(index)), self.names[index]) for index in indices]
        return sum(key != self.keys[index] for key, index in zip(keys, indices, strict=True))

    def nearest(
        self, descriptor: np.ndarray, count: int, query_index: int | None = None, exact: bool = False
    ) -> list[tuple[int, float]]:
        """Return the indices and similarities of the most similar images.

        Args:
            descriptor: (D,), of the query.
            count: number of images; all images if there are fewer.
            query_index: index of the query image, which always ranks first; None if it is not indexed.
            exact: compare all images, although there is an approximate index.

        Returns:
            Pairs by falling similarity, at most 1, ties in the order of the names.

        Raises:
            UserError: FAISS is not installed, which the approximate index needs.
        """
        return self.nearest_each(descriptor[np.newaxis], count, [query_index], exact)[0]

    def nearest_each(
        self, descriptors: np.ndarray, count: int, query_indices: Sequence[int | None], exact: bool = False
    ) -> list[list[tuple[int, float]]]:
        """Return the result of `nearest` per query, by one pass over the index for many queries.

        Args:
            descriptors: (Q, D), of the queries.
            count: as for `nearest`.
            query_indices: index of each query image; None if it is not indexed.
            exact: as for `nearest`.
        """
        count = min(count, len(self.keys))
        results = []
        for start in range(0, len(descriptors), QUERIES):
            block = slice(start, start + QUERIES)
            tops = zip(*self._top_rows(descriptors[block], count, exact), strict=True)
            for descriptor, query_index, (indices, similarities) in zip(
                descriptors[block], query_indices[block], tops, strict=True
            ):
                # Rounding, especially to float16, can make a dot product of unit vectors greater than 1.
                nearest = list(zip(indices.tolist(), similarities.clip(max=1).tolist(), strict=True))
                results.append(self._with_itself_first(nearest, descriptor, query_index))
        return results

    def _with_itself_first(
        self, nearest: list[tuple[int, float]], descriptor: np.ndarray, query_index: int | None
    ) -> list[tuple[int, float]]:
        """Return as many nearest images, of which the query image is the first if it is indexed."""
        if query_index is None or not nearest:
            return nearest
        # Descriptors of equal images from different batches differ by rounding, so a copy of the query image
        # may be more similar to the query than the indexed query image.
        query_row = self.rows[np.array([query_index])][0].astype(np.float64)
        query_similarity = min(float(np.float32(query_row @ descriptor)), 1.0)
        first = (query_index, max(query_similarity, nearest[0][1]))
        return [first, *(pair for pair in nearest if pair[0] != query_index)][: len(nearest)]

    def _top_rows(self, descriptors: np.ndarray, count: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return indices and similarities, (Q, count), from the approximate index or of all images."""
        if exact or self.approximate is None:
            return top_rows(descriptors, self.rows, count)
        pairs = [self._top_candidates(descriptor[np.newaxis], count) for descriptor in descriptors]
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])

    def _top_candidates(self, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return indices and similarities of one query, (1, count), from the approximate index if it can."""
        assert self.approximate is not None
        candidates = self.approximate.candidates(query[0], CANDIDATES_PER_MATCH * count)
        if len(candidates) < count or not count:
            return top_rows(query, self.rows, count)
        similarities = compute_similarities(query, self.rows[candidates])
        first = first_indices(similarities, count)
        return candidates[first], np.take_along_axis(similarities, first, axis=1)


def name_in(folder: Path, path: Path) -> str | None:
    """Return the path of an image relative to an indexed folder; None if it is not in the folder."""
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except (ValueError, OSError, RuntimeError):  # RuntimeError: circular links
        return None


def read_index(folder: Path) -> ImageIndex:
    """Read an index. While another process replaces it, the result is the old or the new index.

    Args:
        folder: folder of the index.

    Raises:
        UserError: the index does not exist or is not valid.
    """
    try:
        return _read_index(folder)
    except UserError:
        return _read_index(folder)  # catalogue and store may have been replaced between the two reads


def _read_index(folder: Path) -> ImageIndex:
    lookup = read_lookup(folder)
    if lookup is not None:
        names = Names(lookup.keys)
        return ImageIndex(
            lookup.folder, names, lookup.keys, lookup.rows, lookup.settings, folder, lookup.version
        )
    versions = index_versions(folder)
    catalogue = read_catalogue(folder)
    store = open_store(folder / INDEX_STORE, catalogue.settings, precision=catalogue.precision)
    if any(key not in store for key in catalogue.keys):
        raise invalid_catalogue(folder)
    stored = store.find(catalogue.keys)
    with suppress(UserError):  # the index cannot be written: each query verifies it
        write_lookup(folder, catalogue.folder, catalogue.keys, catalogue.settings, stored, versions)
    rows = StoredRows(MappedShards(stored.paths), stored.positions, stored.lengths)
    names = Names(catalogue.keys)
    version = versions[CATALOGUE]
    return ImageIndex(catalogue.folder, names, catalogue.keys, rows, catalogue.settings, folder, version)
