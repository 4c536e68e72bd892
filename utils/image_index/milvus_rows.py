"""Rows of an index in Milvus, in two collections.

A row of the first collection has the key of an image, see `utils.descriptors.keys`, and its descriptor; its
id is a digest of the key. The second collection has one row, the record of the index.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np

from utils.descriptors.describe import Descriptors
from utils.errors import UserError
from utils.files.records import parse_json
from utils.image_index.catalogue import SavedSettings
from utils.image_index.milvus import SECONDS, Address, Client, remove_incomplete

SETTINGS_SUFFIX = "_settings"
MOST_BYTES = 65535
"""Largest number of bytes of a text in Milvus."""

MOST_ROWS = 16384
"""Largest number of rows that Milvus returns at once."""

LOADING_SECONDS = 600.0
"""Seconds that Milvus may take to load a collection for search."""

SENT_BYTES = 4 << 20
"""Largest number of bytes of descriptors in one message."""


class MilvusRecord(TypedDict):
    """The folder of an index, and the settings of its descriptors."""

    folder: str
    settings: SavedSettings


def row_id(key: str) -> str:
    """Return the id of a row of Milvus."""
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def settings_collection(address: Address) -> str:
    """Return the name of the collection of the record."""
    return address.collection + SETTINGS_SUFFIX


def read_record(client: Client, address: Address) -> MilvusRecord | None:
    """Load both collections, and return the record of the index; None if there is no index.

    Raises:
        UserError: a collection is of another program.
    """
    exist = [
        client.has_collection(n, timeout=SECONDS) for n in (address.collection, settings_collection(address))
    ]
    if not exist[0]:
        return None
    rows = []
    if exist[1]:
        for name in (settings_collection(address), address.collection):
            _load(client, name)
        rows = client.get(settings_collection(address), [0], ["record"], timeout=SECONDS)
    if not rows:
        raise UserError(f"{address} was not made by this program: name another --collection")
    return parse_json(Path(str(address)), rows[0]["record"], MilvusRecord)


def all_ids(client: Client, address: Address) -> set[str]:
    """Return the ids of all rows."""
    ids: set[str] = set()
    rows = client.query_iterator(
        address.collection, batch_size=MOST_ROWS, output_fields=["id"], timeout=SECONDS
    )
    while block := rows.next():
        ids |= {row["id"] for row in block}
    rows.close()
    return ids


def create_index(
    client: Client,
    address: Address,
    folder: Path,
    settings: Mapping[str, object],
    width: int,
) -> None:
    """Create the collections of an index unless they exist, the collection of images last."""
    from pymilvus import DataType

    text = {"datatype": DataType.VARCHAR, "max_length": MOST_BYTES}
    number = {"datatype": DataType.INT64}
    _create_collection(client, address, settings_collection(address), 2, {"id": number, "record": text})
    write_record(client, address, folder, settings)  # now, since a collection without it is not ours
    digest = {"datatype": DataType.VARCHAR, "max_length": 32}
    _create_collection(client, address, address.collection, width, {"id": digest, "key": text})


def _create_collection(
    client: Client, address: Address, name: str, width: int, fields: Mapping[str, dict[str, object]]
) -> None:
    """Create a collection unless it exists, and load it.

    Args:
        client: the client.
        address: the index.
        name: name of the collection.
        width: D of the descriptor of each row.
        fields: further fields, with their parameters; `id` is the primary key.
    """
    from pymilvus import DataType

    if not client.has_collection(name, timeout=SECONDS):
        remove_incomplete(address, name)
        schema = client.create_schema()
        for field, kind in fields.items():
            schema.add_field(field, is_primary=field == "id", **kind)
        schema.add_field("descriptor", DataType.FLOAT_VECTOR, dim=width)
        client.create_collection(name, schema=schema, consistency_level="Strong", timeout=LOADING_SECONDS)
    _load(client, name)


def _load(client: Client, name: str) -> None:
    """Load a collection, which needs an index; a process killed while creating it leaves it without."""
    if not client.list_indexes(name, timeout=SECONDS):
        indices = client.prepare_index_params()
        indices.add_index("descriptor", index_type="FLAT", metric_type="IP")
        client.create_index(name, indices, timeout=LOADING_SECONDS)
    client.load_collection(name, timeout=LOADING_SECONDS)


def write_record(client: Client, address: Address, folder: Path, settings: Mapping[str, object]) -> None:
    """Write the folder and the settings of an index."""
    record = json.dumps({"folder": str(folder.resolve()), "settings": settings})
    row = {"id": 0, "record": record, "descriptor": [0.0, 0.0]}
    client.upsert(settings_collection(address), [row], timeout=SECONDS)


def send(client: Client, address: Address, described: Descriptors) -> None:
    """Send descriptors to Milvus, in messages of limited size."""
    rows = described.rows
    step = max(1, SENT_BYTES // (4 * rows.shape[1]))
    for start in range(0, len(described.keys), step):
        keys = described.keys[start : start + step]
        vectors = rows[start : start + step].astype(np.float32)
        client.upsert(
            address.collection,
            [
                {"id": row_id(key), "key": json.dumps(key), "descriptor": vector}
                for key, vector in zip(keys, vectors, strict=True)
            ],
            timeout=SECONDS,
        )
