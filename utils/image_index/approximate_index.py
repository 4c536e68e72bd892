"""Approximate index of photographs: inverted lists of 8-bit codes, from FAISS, which are mapped into memory.

A query reads the codes in some lists, and compares the exact descriptors of the nearest images. Each image
is identified in the lists by a hash of its key. Images that came after the lists were written are always
compared, and images that were deleted are left out: lists of an earlier state of the index can be used, too.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from utils.errors import UserError
from utils.file_names import APPROXIMATE_FOLDER, APPROXIMATE_RECORD, CATALOGUE
from utils.files.arrays import map_array
from utils.files.digests import file_version, remembered_digest
from utils.files.reading import open_checked
from utils.files.records import Setting, read_json
from utils.search.approximate import load_faiss

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files; files of other versions are not used."""

FEWEST_CANDIDATES = 100

SEARCH_INSTEAD = "give --exact"
UPDATE = "run index again"


class ApproximateRecord(TypedDict):
    """Contents of the record of an approximate index."""

    format: int
    settings: dict[str, Setting]
    """Settings of the descriptors."""
    generation: str
    """Text in the names of the files, which are written before the record."""
    digest: str
    """Digest of the contents of the files."""
    catalogue: str
    """Digest of the catalogue that the files belong to."""
    trained_on: int
    """Number of images of the index when the centres of the lists were computed."""
    lists: int
    probes: int
    """Number of lists that a query reads."""
    recall: float
    """Share of the exact first 10 matches that the queries of a sample find, 0..1."""


@dataclass(frozen=True)
class ApproximateIndex:
    """Inverted lists, and the images of an index by their ids in the lists."""

    lists: Any  # FAISS has no types
    record: ApproximateRecord
    ids: np.ndarray
    """(N,) int64, the ids of the images of the index, sorted."""
    order: np.ndarray
    """(N,) int64, the index of each of these images."""
    pending: np.ndarray
    """Indices of images that are not in the lists, which are always compared."""

    def candidates(self, descriptor: np.ndarray, count: int) -> np.ndarray:
        """Return the indices of images that may be the most similar ones, sorted.

        Args:
            descriptor: (D,), of the query.
            count: number of images to take from the lists, at least FEWEST_CANDIDATES.
        """
        count = max(count, FEWEST_CANDIDATES)
        self.lists.nprobe = self.record["probes"]
        query = np.ascontiguousarray(descriptor[np.newaxis], np.float32)
        _, found = self.lists.search(query, min(count, max(self.lists.ntotal, 1)))
        ids = found[0][found[0] >= 0]  # -1 if the lists held fewer images
        starts = np.searchsorted(self.ids, ids, "left")
        counts = np.searchsorted(self.ids, ids, "right") - starts  # 0 for a deleted image
        # Nearly all counts are 1: the ranks of image i are starts[i], starts[i] + 1, ..., counts[i] of them.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.unique(np.concatenate([self.pending, self.order[np.repeat(starts, counts) + within]]))


def image_ids(keys: Sequence[str]) -> np.ndarray:
    """Return the ids of images, (N,) int64, at least 0: hashes of their keys.

    If two images have the same id, which is unlikely, both are compared when a query finds the id.
    """
    hashes = (hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys)
    ids = np.frombuffer(b"".join(hashes), "<i8").astype(np.int64)
    return ids & np.iinfo(np.int64).max


def sorted_ids(keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of images in increasing order, and the index of each."""
    ids = image_ids(keys)
    order = np.argsort(ids, kind="stable")
    return ids[order], order


def generation_files(index: Path, generation: str) -> tuple[Path, Path, Path]:
    """Return the files of an approximate index: lists, sorted ids, and index of each id."""
    folder = index / APPROXIMATE_FOLDER
    return (
        folder / f"lists-{generation}.faiss",
        folder / f"ids-{generation}.npy",
        folder / f"order-{generation}.npy",
    )


def digest_of_files(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of the contents of files; it is remembered until one changes.

    Raises:
        FileNotFoundError: a file does not exist.
        UserError: a file is unreadable.
    """

    def compute() -> str:
        digest = hashlib.sha256()
        for path in paths:
            with open_checked(path) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    return remembered_digest(paths, "contents of files", compute)


def is_approximate(index: Path) -> bool:
    """Return whether an index has an approximate index."""
    return (index / APPROXIMATE_FOLDER / APPROXIMATE_RECORD).exists()


def read_record(index: Path, settings: dict[str, object]) -> ApproximateRecord | None:
    """Read the record of an approximate index and check its files.

    Args:
        index: folder of the index.
        settings: settings of the descriptors.

    Returns:
        The record; None if there is none, or if it or a file is not valid, which is logged.
    """
    path = index / APPROXIMATE_FOLDER / APPROXIMATE_RECORD
    try:
        record = read_json(path, ApproximateRecord)
        is_valid = (record["format"], record["settings"]) == (FORMAT, settings)
        is_valid = (
            is_valid and digest_of_files(generation_files(index, record["generation"])) == record["digest"]
        )
    except FileNotFoundError:
        if not path.exists():
            return None
        is_valid = False
    except UserError:
        is_valid = False
    if is_valid:
        return record
    log.warning("note: %s is not valid, so all images are compared: %s", path.parent, UPDATE)
    return None


def read_approximate(
    index: Path, keys: Sequence[str], settings: dict[str, object], version: str | None
) -> ApproximateIndex | None:
    """Open the approximate index of an index, and find the images that it lacks.

    Args:
        index: folder of the index.
        keys: keys of the images of the index.
        settings: settings of the descriptors.
        version: version of the catalogue that the keys are from, see `file_version`.

    Returns:
        The approximate index, or None if there is none that is valid.

    Raises:
        UserError: FAISS is not installed.
    """
    if not is_approximate(index):
        return None
    faiss = load_faiss(SEARCH_INSTEAD)
    record = read_record(index, settings)
    if record is None:
        return None
    paths = generation_files(index, record["generation"])
    try:
        lists = faiss.read_index(str(paths[0]), faiss.IO_FLAG_MMAP)
        # As plain arrays, whose items are read much faster.
        listed, order = (np.asarray(map_array(path, (np.int64,), (None,))) for path in paths[1:])
    except (RuntimeError, FileNotFoundError, UserError):  # replaced since the record was read
        return None
    catalogue = index / CATALOGUE
    if digest_of_files([catalogue]) == record["catalogue"] and file_version(catalogue) == version:
        return ApproximateIndex(lists, record, listed, order, np.empty(0, np.int64))
    ids, indices = sorted_ids(keys)
    pending = indices[~np.isin(ids, listed)]
    if len(pending):
        log.warning("note: %d images came after the approximate index: %s", len(pending), UPDATE)
    return ApproximateIndex(lists, record, ids, indices, pending)
