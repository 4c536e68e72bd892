"""Index of a folder of images in a collection of Milvus.

New descriptors are kept in a local store until Milvus has them, and rows of images that are gone are deleted
last. If indexing is killed or the server goes away, no descriptor is lost, and the next run continues.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.descriptors.describe import Descriptors, NoReadableImageError
from utils.descriptors.keys import image_key, image_keys
from utils.descriptors.rows import StoredRows
from utils.descriptors.store import DescriptorStore, forget_empty, open_store
from utils.errors import UserError
from utils.files.writing import user_error_if_unwritable
from utils.image_index.catalogue import INDEX_INSTRUCTIONS
from utils.image_index.image_index import ImageIndex, name_in
from utils.image_index.milvus import SECONDS, Address, close_client, connected, milvus_errors, open_client
from utils.image_index.milvus_rows import (
    MOST_ROWS,
    MilvusRecord,
    all_ids,
    create_index,
    read_record,
    row_id,
    send,
    write_record,
)
from utils.images.loading import InputImage
from utils.saved_settings import check_same_settings

DESCRIBED_IMAGES = 16384
"""Number of images after whose description the descriptors are sent to Milvus."""

RESUME = "delete it, or give the options of the run that was killed"

SENT_IDS = 1000
"""Largest number of ids in one message."""

MARGIN = 16
"""Number of further matches to get from Milvus: their similarities are rounded, and computed again here."""


class Changes(NamedTuple):
    """Numbers of images of an index after an update, and of images that were added and removed."""

    images: int
    new: int
    removed: int


class MilvusIndex:
    """Index of the images of a folder in Milvus, whose methods return parts of it as `ImageIndex`.

    It keeps a connection until `close`; meanwhile, no other process can open the same local database.

    Args:
        address: the collection.

    Raises:
        UserError: there is no index, or Milvus does not answer.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client = open_client(address)
        try:
            with milvus_errors(address):
                record = read_record(self._client, address)
                if record is None:
                    raise UserError(f"no index at {address}: {INDEX_INSTRUCTIONS} --milvus {address.uri}")
                (row,) = self._client.query(address.collection, "", ["count(*)"], timeout=SECONDS)
        except BaseException:
            self.close()
            raise
        self.size = int(row["count(*)"])
        """Number of rows in the collection."""
        self.folder = Path(record["folder"])
        """Folder that was indexed."""
        self.settings: dict[str, object] = dict(record["settings"])
        """Settings of the descriptors."""

    @property
    def location(self) -> str:
        """The collection, for messages."""
        return str(self.address)

    def close(self) -> None:
        """Close the connection."""
        close_client(self.address, self._client)

    def with_images(self, images: Sequence[InputImage]) -> ImageIndex:
        """Return the part of the index with the images that are indexed and have not changed.

        Raises:
            UserError: Milvus does not answer.
        """
        named = [(image, name_in(self.folder, image.path)) for image in images]
        ids = [row_id(image_key(image, name)) for image, name in named if name is not None]
        return self._part(list(dict.fromkeys(ids)))

    def nearest(
        self,
        descriptor: np.ndarray,
        count: int,
        image: ImageIndex,
        is_excluded: Callable[[str], bool] = lambda name: False,
    ) -> ImageIndex:
        """Return the part of the index that has the most similar images, and a further part.

        If images are left out, at most the MOST_ROWS most similar images of the index are considered.

        Args:
            descriptor: (D,), of the query.
            count: number of images.
            image: the further part, with the query image.
            is_excluded: tells whether an image is left out, by its path relative to the folder.

        Raises:
            UserError: Milvus does not answer, or `count` is too large.
        """
        if count > MOST_ROWS - MARGIN:
            raise UserError(f"top {count} is too large: Milvus finds {MOST_ROWS - MARGIN} images at most")
        limit = count + MARGIN
        while True:
            with milvus_errors(self.address):
                (hits,) = self._client.search(
                    self.address.collection, [descriptor], limit=limit, output_fields=["id"], timeout=SECONDS
                )
            ids = [row_id(key) for key in image.keys] + [hit["id"] for hit in hits]
            part = self._part(list(dict.fromkeys(ids)), is_excluded)
            if len(part.names) >= count or len(hits) < limit or limit == MOST_ROWS:
                return part
            limit = min(2 * limit, MOST_ROWS)  # a killed update has left old rows of changed images

    def _part(
        self, ids: Sequence[str], is_excluded: Callable[[str], bool] = lambda name: False
    ) -> ImageIndex:
        """Return the part of the index that has the images of ids. The first row of an image is used."""
        found: dict[str, tuple[str, np.ndarray]] = {}
        for start in range(0, len(ids), SENT_IDS):
            block, fields = list(ids[start : start + SENT_IDS]), ["id", "key", "descriptor"]
            with milvus_errors(self.address):
                rows = self._client.get(self.address.collection, block, fields, timeout=SECONDS)
            by_id = {row["id"]: row for row in rows}
            for row in (by_id[digest] for digest in block if digest in by_id):
                key = str(json.loads(row["key"]))
                found.setdefault(key.split("\0")[0], (key, np.array(row["descriptor"], np.float32)))
        names = sorted(
            (name for name in found if not is_excluded(name)), key=Path
        )  # the order of a local index, which decides ties
        vectors = [np.stack([found[name][1] for name in names])] if names else []
        keys = [found[name][0] for name in names]
        stored = StoredRows(vectors, np.arange(len(names)))
        return ImageIndex(self.folder, names, keys, stored, self.settings, self.location)


def update_milvus_index(
    address: Address,
    pending: Path,
    folder: Path,
    names: Sequence[str],
    settings: Mapping[str, object],
    describe: Callable[[Sequence[str], DescriptorStore], Descriptors],
) -> Changes:
    """Make an index in Milvus the index of the images of a folder.

    Args:
        address: the collection, which is created if it is missing.
        pending: folder of a local store for descriptors that Milvus does not have yet; removed at the end.
        folder: folder of the images.
        names: path of each image, relative to the folder.
        settings: settings of the descriptors.
        describe: a function that describes the images of some names and adds the descriptors to a store.

    Raises:
        UserError: the index has other settings or is of another folder, Milvus does not answer, or no image
            is readable.
    """
    with connected(address, create=True) as client:
        saved = read_record(client, address)
        indexed = set() if saved is None else all_ids(client, address)
    if saved is not None:
        _check_record(address, saved, folder, settings)
    keys = image_keys([InputImage(folder / name) for name in names], names)
    shutil.rmtree(_removed(pending), ignore_errors=True)
    forget_empty(pending)
    store = open_store(pending, settings, tidy=True, advice=RESUME)
    missing = [
        (key not in store, name) for name, key in zip(names, keys, strict=True) if row_id(key) not in indexed
    ]
    missing.sort(key=lambda item: item[0])  # a killed run has described the first ones
    sent: set[str] = set()
    error = UserError(f"no images in {folder} or the folders in it")
    for start in range(0, len(missing), DESCRIBED_IMAGES):
        store = open_store(pending, settings)
        try:
            described = describe([name for _, name in missing[start : start + DESCRIBED_IMAGES]], store)
        except NoReadableImageError as unreadable:
            error = unreadable
            continue
        # Milvus is not connected meanwhile: other processes can use a local database, and workers be forked.
        with connected(address) as client:
            if saved is None and not sent:
                create_index(client, address, folder, settings, described.rows.shape[1])
            send(client, address, described)
        sent |= set(map(row_id, described.keys))
        _remove(pending)
    if saved is None and not sent:
        raise error
    gone = sorted(indexed - sent - set(map(row_id, keys)))
    with connected(address) as client:
        write_record(client, address, folder, settings)
        for start in range(0, len(gone), SENT_IDS):
            client.delete(address.collection, gone[start : start + SENT_IDS], timeout=SECONDS)
    _remove(pending)
    return Changes(len((indexed | sent).difference(gone)), len(sent - indexed), len(gone))


def _removed(pending: Path) -> Path:
    """Return the name under which a local store is deleted."""
    return pending.with_name(f"{pending.name}-sent")


def _remove(pending: Path) -> None:
    """Delete a local store whose descriptors Milvus has. A killed process leaves it complete or renamed."""
    with user_error_if_unwritable(pending), suppress(FileNotFoundError):
        pending.rename(_removed(pending))
        shutil.rmtree(_removed(pending))


def _check_record(
    address: Address, saved: MilvusRecord, folder: Path, settings: Mapping[str, object]
) -> None:
    """Check that an index belongs to a folder, unless its own is gone, and has the given settings.

    Raises:
        UserError: it does not.
    """
    indexed = Path(saved["folder"])
    if indexed != folder.resolve() and indexed.exists():
        raise UserError(f"{address} is the index of {indexed}: name another --collection for {folder}")
    advice = "give the options that the index was made with, or name another --collection"
    check_same_settings(str(address), dict(saved["settings"]), json.loads(json.dumps(settings)), advice)
