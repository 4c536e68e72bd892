"""Connections to Milvus: a local database, or a server."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import UserError
from utils.files.writing import check_writable
from utils.image_index.catalogue import INDEX_INSTRUCTIONS

LOCAL_SUFFIX = ".db"
LOCAL_LOCK = "LOCK"
"""A file that each local database has."""
LOCAL_COLLECTIONS, LOCAL_SCHEMA = "collections", "schema.json"

TOKEN = "MILVUS_TOKEN"
"""Environment variable with the token, or user:password, of a server."""

SECONDS = 30.0
"""Seconds to wait for an answer."""

SILENT = logging.CRITICAL + 1
ADVICE = "start it, or wait for the process that uses it, and run the command again: nothing is lost"

COLLECTION = re.compile(r"[A-Za-z_]\w{0,199}", re.ASCII)


Client = Any
"""A MilvusClient; pymilvus publishes no types."""


class Address(NamedTuple):
    """A collection in a local database or on a server."""

    uri: str
    collection: str

    @property
    def database(self) -> Path | None:
        """The local database; None for a server."""
        return None if "://" in self.uri else Path(self.uri).expanduser()

    def __str__(self) -> str:
        return f"{self.uri}, collection {self.collection}"


def check_address(address: Address) -> None:
    """Check the form of an address.

    Raises:
        UserError: the name of the collection, or of the local database, is not valid.
    """
    if not COLLECTION.fullmatch(address.collection):
        raise UserError(
            f"collection {address.collection} is not a name of up to 200 letters, digits and underscores"
        )
    if address.database is not None and address.database.suffix != LOCAL_SUFFIX:
        raise UserError(
            f"milvus {address.uri} is neither an address, such as http://localhost:19530, nor the name of a "
            f"local database, which ends in {LOCAL_SUFFIX}"
        )


def check_database(path: Path, create: bool) -> None:
    """Check that a local database can be opened, or created if `create` is True.

    Raises:
        UserError: it is missing, cannot be written, or is another file or folder.
    """
    if not path.exists():
        if not create:
            raise UserError(f"no index at {path}: {INDEX_INSTRUCTIONS} --milvus {path}")
        check_writable(path.absolute().parent)
    elif (path / LOCAL_LOCK).is_file():
        check_writable(path)
    else:
        raise UserError(f"{path} is not a database of Milvus Lite 3: name another one")


def remove_incomplete(address: Address, name: str) -> None:
    """Remove a collection without a schema from a local database, which a killed process has left.

    Milvus Lite neither lists nor replaces it. The database must be open, which excludes other processes.
    """
    if address.database is not None:
        folder = address.database / LOCAL_COLLECTIONS / name
        if folder.is_dir() and not (folder / LOCAL_SCHEMA).exists():
            shutil.rmtree(folder)


def open_client(address: Address, create: bool = False) -> Client:
    """Return a client of Milvus. Close it with `close_client`.

    Args:
        address: the collection.
        create: create a local database if it is missing.

    Raises:
        UserError: pymilvus is missing, the local database cannot be opened, or the server does not answer.
    """
    check_address(address)
    if address.database is not None:
        check_database(address.database, create)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    try:
        import pymilvus

        if address.database is not None:
            import milvus_lite.server_manager  # noqa: F401
    except ImportError as error:
        raise UserError("Milvus needs two packages: pip install pymilvus milvus-lite") from error
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc"):
        logging.getLogger(name).setLevel(SILENT)  # their errors are exceptions, too
    with milvus_errors(address):
        uri = address.uri if address.database is None else str(address.database)
        token = os.environ.get(TOKEN, "")
        # Not shared: a shared connection would outlive the client.
        return pymilvus.MilvusClient(uri, token=token, timeout=SECONDS, dedicated=True)


def close_client(address: Address, client: Client) -> None:
    """Close a client, and the local database for other processes."""
    client.close()
    if address.database is not None:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(address.database))


@contextmanager
def connected(address: Address, create: bool = False) -> Iterator[Client]:
    """Connect to Milvus while a block runs.

    Raises:
        UserError: as for `open_client`, or Milvus does not answer or refuses a request of the block.
    """
    client = open_client(address, create)
    try:
        with milvus_errors(address):
            yield client
    finally:
        close_client(address, client)


@contextmanager
def milvus_errors(address: Address) -> Iterator[None]:
    """Turn errors of Milvus in a block into user errors of one line.

    Raises:
        UserError: the block raised an error of Milvus.
    """
    import grpc
    import pymilvus

    try:
        yield
    except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        raise UserError(f"Milvus at {address.uri} does not answer ({reason}): {ADVICE}") from error
