"""Lookup files of an index: its images in a form of which a query reads only what it needs.

A query that parsed the catalogue and verified all descriptors would take longer the larger the index is. Both
are done once after a change, and the result is kept in files that are mapped into memory. They are used while
the catalogue, the settings of the store and all its shards are the same files, see `file_version`.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, overload

import numpy as np

from utils.descriptors.rows import StoredRows
from utils.descriptors.shards import MappedShards
from utils.descriptors.store import StoredPositions
from utils.errors import UserError
from utils.file_names import (
    CATALOGUE,
    INDEX_LOOKUP,
    INDEX_STORE,
    LOOKUP_RECORD,
    SHARD_PREFIX,
    SHARD_RECORD_SUFFIX,
    STORE_SETTINGS,
)
from utils.files.arrays import map_array
from utils.files.digests import file_version
from utils.files.folders import replace_folder
from utils.files.records import Setting, read_json

FORMAT = 1
"""Version of the lookup files; files of other versions are not used."""

POSITIONS, ENDS, ORDER, TEXT = "positions.npy", "ends.npy", "order.npy", "text.npy"


class MappedKeys(Sequence[str]):
    """Keys of images in mapped files, decoded one at a time.

    Args:
        text: (bytes,) uint8, all keys in UTF-8, one after the other.
        ends: (N,) int64, the end of each key in the text.
        order: (N,) int64, the indices of the keys in the order of their bytes.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray, order: np.ndarray) -> None:
        self._text = text
        self._ends = ends
        self._order = order

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return _decoded(self._bytes(range(len(self))[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as for a list

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def index(self, key: str, start: int = 0, stop: int | None = None) -> int:
        """Return the index of a key, by bisection.

        Raises:
            ValueError: there is no such key.
        """
        index = self._find(key)
        if index is None or index not in range(len(self))[start:stop]:
            raise ValueError(f"{key!r} is not among the keys")
        return index

    def _find(self, key: str) -> int | None:
        encoded = _encoded(key)
        rank = bisect_left(self._order, encoded, key=self._bytes)
        if rank == len(self) or self._bytes(self._order[rank]) != encoded:
            return None
        return int(self._order[rank])

    def _bytes(self, index: int) -> bytes:
        start = self._ends[index - 1] if index else 0
        return self._text[start : self._ends[index]].tobytes()


class Names(Sequence[str]):
    """Names of images, the first parts of their keys."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        keys = self._keys[index]
        return keys.split("\0")[0] if isinstance(keys, str) else [key.split("\0")[0] for key in keys]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as for a list


class LookupRecord(TypedDict):
    """Contents of the record of the lookup files."""

    format: int
    folder: str
    settings: dict[str, Setting]
    versions: dict[str, str]
    """Version of each file that the lookup files were made from, and of these, by its path in the index."""
    shards: list[str]
    """File name of the rows of each shard."""
    lengths: list[int]
    """Number of rows of each shard."""


class Lookup(NamedTuple):
    """Contents of the lookup files."""

    folder: Path
    """Folder that was indexed."""
    settings: dict[str, object]
    keys: MappedKeys
    rows: StoredRows
    version: str
    """Version of the catalogue."""


def index_versions(index: Path) -> dict[str, str | None]:
    """Return the versions of the files of an index; call it before the files are read."""
    shards = (index / INDEX_STORE).glob(f"{SHARD_PREFIX}*")
    paths = [index / CATALOGUE, index / INDEX_STORE / STORE_SETTINGS, *shards]
    return {str(path.relative_to(index)): file_version(path) for path in paths}


def write_lookup(
    index: Path,
    folder: Path,
    keys: Sequence[str],
    settings: Mapping[str, object],
    stored: StoredPositions,
    versions: Mapping[str, str | None],
) -> None:
    """Write the lookup files of an index that has been verified.

    Args:
        index: folder of the index.
        folder: folder that was indexed.
        keys: keys of the images.
        settings: settings of the descriptors.
        stored: positions of the descriptors of the keys.
        versions: as returned by `index_versions` before the index was read. If files were replaced meanwhile,
            the lookup files are not used.

    Raises:
        UserError: the files cannot be written.
    """
    encoded = [_encoded(key) for key in keys]
    arrays = {
        POSITIONS: stored.positions,
        ENDS: np.cumsum([len(key) for key in encoded], dtype=np.int64),
        ORDER: np.array(sorted(range(len(keys)), key=encoded.__getitem__), np.int64),
        TEXT: np.frombuffer(b"".join(encoded), np.uint8),
    }
    needed = [CATALOGUE, f"{INDEX_STORE}/{STORE_SETTINGS}"]
    for path in stored.paths:
        needed += [
            f"{INDEX_STORE}/{path.name}",
            f"{INDEX_STORE}/{path.with_suffix(SHARD_RECORD_SUFFIX).name}",
        ]
    with replace_folder(index / INDEX_LOOKUP) as temporary:
        for name, array in arrays.items():
            np.save(temporary / name, array)
        record = {
            "format": FORMAT,
            "folder": str(folder),
            "settings": settings,
            "versions": {name: versions.get(name) or "" for name in needed}
            | {f"{INDEX_LOOKUP}/{name}": file_version(temporary / name) for name in arrays},
            "shards": [path.name for path in stored.paths],
            "lengths": stored.lengths,
        }
        (temporary / LOOKUP_RECORD).write_text(json.dumps(record), encoding="utf-8")


def read_lookup(index: Path) -> Lookup | None:
    """Return the contents of the lookup files of an index; None unless they belong to its present files."""
    try:
        record = read_json(index / INDEX_LOOKUP / LOOKUP_RECORD, LookupRecord)
        arrays = {
            # as plain arrays, whose items are read much faster
            name: np.asarray(map_array(index / INDEX_LOOKUP / name, (kind,), (None,)))
            for name, kind in ((POSITIONS, np.int64), (ENDS, np.int64), (ORDER, np.int64), (TEXT, np.uint8))
        }
    except (OSError, UserError):  # missing, unreadable, or being replaced
        return None
    # Checked last: if the lookup files were replaced between the reads, their versions differ.
    if record["format"] != FORMAT or not _are_same(index, record["versions"].items()):
        return None
    paths = [index / INDEX_STORE / name for name in record["shards"]]
    rows = StoredRows(MappedShards(paths), arrays[POSITIONS], record["lengths"])
    keys = MappedKeys(arrays[TEXT], arrays[ENDS], arrays[ORDER])
    version = record["versions"].get(CATALOGUE, "")
    return Lookup(Path(record["folder"]), dict(record["settings"]), keys, rows, version)


def _are_same(index: Path, versions: Iterable[tuple[str, str]]) -> bool:
    return all(file_version(index / name) == version for name, version in versions)


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")  # file names that are not in UTF-8 hold surrogates


def _decoded(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
