"""Digests of large files, each computed once and then remembered in the cache folder of the user.

A remembered digest is used while its files have the same size, inode, time of modification and time of
change. Programs can set the time of modification, but the system sets the time of change. A file that was
replaced is therefore noticed even if the new file has the same size and an older time.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

from utils.errors import UserError
from utils.files.records import read_json, write_json
from utils.files.writing import make_folder

log = logging.getLogger(__name__)

CACHE_FOLDER = Path("regional-attention", "digests")
"""Folder of the digests, in the cache folder of the user."""

SETTLED_SECONDS = 2.0
"""Seconds after a change of a file from which a further change gives it another time on any disk."""


class RememberedDigest(TypedDict):
    """A digest in the cache: one file per kind and paths, so that processes need no lock."""

    kind: str
    paths: list[str]
    versions: list[str]
    """The version of each file, see `file_version`."""
    digest: str


def remembered_digest(paths: Sequence[Path], kind: str, compute: Callable[[], str]) -> str:
    """Return a digest of the contents of files; compute it unless it is remembered for these versions.

    Args:
        paths: the files. If one cannot be read, the digest is computed, which raises the error.
        kind: the name of the digest, unique to its computation.
        compute: function that computes the digest, and checks the files.
    """
    versions = [file_version(path) for path in paths]
    found = [version for version in versions if version is not None]
    record = _record_path(paths, kind)
    if record is None or len(found) < len(paths):
        return compute()
    names = [os.path.realpath(path) for path in paths]
    saved = _read(record)
    if saved is not None and (saved["kind"], saved["paths"], saved["versions"]) == (kind, names, found):
        return saved["digest"]
    digest = compute()
    # A file that changes while it is read, or so soon after a change that its times may stay, is read again.
    if [file_version(path) for path in paths] == found and all(map(is_settled, paths)):
        _write(record, {"kind": kind, "paths": names, "versions": found, "digest": digest})
    return digest


def file_version(path: Path) -> str | None:
    """Return a text that changes when a file is changed or replaced; None if there is no such file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def is_settled(path: Path) -> bool:
    """Return whether the last change of a file is so long ago that the next one gives it another time."""
    try:
        return time.time() - path.stat().st_ctime > SETTLED_SECONDS
    except OSError:
        return False


def _record_path(paths: Sequence[Path], kind: str) -> Path | None:
    """Return the file of a remembered digest; None if the user has no home folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            return None
    name = "\0".join([kind, *map(os.path.realpath, paths)])
    return cache / CACHE_FOLDER / f"{hashlib.sha256(os.fsencode(name)).hexdigest()}.json"


def _read(record: Path) -> RememberedDigest | None:
    try:
        return read_json(record, RememberedDigest)
    except (OSError, UserError):  # missing or unreadable
        return None


def _write(record: Path, contents: RememberedDigest) -> None:
    try:
        make_folder(record.parent)
        write_json(record, contents)
    except UserError as error:  # the next run computes the digest again
        log.debug("the digest is not remembered: %s", error)
