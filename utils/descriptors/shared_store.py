"""A store of descriptors that the processes of torchrun share."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from utils.descriptors.rows import StoredRows
from utils.descriptors.shards import MappedShards
from utils.descriptors.store import DescriptorStore, open_store
from utils.errors import UserError
from utils.options.shared import StorePrecision
from utils.processes import Processes

DISK_SECONDS = 60.0
"""Seconds that a network disk can take until one computer sees the files that another has written."""


def open_shared_store(
    folder: Path, made_with: Mapping[str, object], precision: StorePrecision, processes: Processes
) -> DescriptorStore:
    """Open a store in all processes; the first process creates it if it is missing.

    Args:
        folder: the folder of the store, which all processes share.
        made_with: the settings of the descriptors, JSON values.
        precision: the number type of the stored rows.
        processes: the processes.

    Raises:
        UserError: as for `open_store`.
    """
    if processes.leads:
        open_store(folder, made_with, precision=precision, verify=False, tidy=True)
    processes.gather([])
    return open_store(folder, made_with, precision=precision)


def read_stored_rows(store: DescriptorStore, keys: Sequence[str], processes: Processes) -> StoredRows:
    """Read the descriptors of keys, once the files that other processes have written can be seen.

    Raises:
        UserError: some are missing, since the processes do not share the store.
    """

    def find_missing() -> list[str]:
        store.read()
        return [key for key in keys if key not in store]

    _wait_for_disk(find_missing, store, processes)
    return store.rows(keys)


def share_stored_rows(store: DescriptorStore, keys: Sequence[str], processes: Processes) -> StoredRows:
    """Return the descriptors of keys in all processes, which must call this function together.

    The first process reads the store. It sends the names of the shards to the others, so that
    all have the shards in the same order.

    Raises:
        UserError: some are missing, since the processes do not share the store.
    """
    if processes.count == 1:
        return read_stored_rows(store, keys, processes)
    if processes.leads:
        read_stored_rows(store, keys, processes)
    stored = processes.from_first(store.find(keys) if processes.leads else None)
    assert stored is not None
    paths = [store.folder / path.name for path in stored.paths]
    _wait_for_disk(lambda: [str(path) for path in paths if not path.exists()], store, processes)
    return StoredRows(MappedShards(paths), stored.positions, stored.lengths)


def _wait_for_disk(
    find_missing: Callable[[], Sequence[str]], store: DescriptorStore, processes: Processes
) -> None:
    """Wait until nothing is missing, or for DISK_SECONDS if other processes can have written it.

    Raises:
        UserError: something is still missing.
    """
    missing = find_missing()
    deadline = time.monotonic() + (DISK_SECONDS if processes.count > 1 else 0)
    while missing and time.monotonic() < deadline:
        time.sleep(1)
        missing = find_missing()
    if missing:
        raise UserError(
            f"{len(missing)} descriptors are not in {store.folder}: all processes must use the same folder, "
            "on a file system that their computers share"
        )
