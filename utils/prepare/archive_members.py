"""Reading tar and zip archives that came from elsewhere: every member is checked before it is handed out."""

import bz2
import gzip
import lzma
import math
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from utils.errors import BadFileError, UserError

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
DECOMPRESSORS = ((rb"\x1f\x8b", gzip.open), (rb"BZh[1-9]1AY&SY", bz2.open), (rb"\xfd7zXZ\0", lzma.open))

ENCRYPTED = 1
"""The bit of a zip member's flags."""

CHUNK_BYTES = 2**16
HEADER_BYTES = 2**17
"""The most to read on the way to a tar's next member: names, and maps of holes, are held in memory."""

UNSAFE = re.compile(r"^/|^[A-Za-z]:|[\\\x00-\x1f\x7f-\x9f]|(^|/)\.\.(/|\Z)|^[./]*\Z")
"""Absolute, with a drive or another system's separators, unprintable, leading upwards, or nothing."""

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError)
ODD_DAMAGE = (ValueError, LookupError, OverflowError, RecursionError, NotImplementedError)
"""What tarfile and zipfile let slip on headers that nobody writes but an attacker or a broken disk."""


def is_safe(name: str | PurePosixPath) -> bool:
    """Whether a path has a name and leads nowhere but downwards, on any system."""
    return not UNSAFE.search(str(name))


def checked_members(
    archive: Path, file: IO[bytes], nested: bool = False
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The regular files of an archive with their data, to be read, or not, before the next one is asked for.

    Args:
        archive: what errors are to name.
        file: the archive, open; tars are read through once.
        nested: whether a member x.tar stands for the files in it, which are then named x/<name>.

    Raises:
        UserError: as `utils.prepare.archives.unpack` tells, but for limits and places.
    """
    with told_of_damage(archive):
        for name, data in _outer_members(archive, file):
            path = PurePosixPath(name)
            if nested and path.suffix == ".tar":
                yield from _inner_members(archive, path, data)
            else:
                yield path, data


def checked_names(archive: Path, file: IO[bytes]) -> Iterator[str]:
    """Yield the names of an archive's regular files; only in a compressed tar are their data read.

    Raises:
        UserError: as `checked_members` raises, except for damaged data that are skipped.
    """
    with told_of_damage(archive):
        start = _first_bytes(file)
        if start.startswith(ZIP_STARTS):
            with zipfile.ZipFile(file) as zipped:
                yield from (info.orig_filename for info in _zip_infos(archive, zipped))
        elif any(re.match(magic, start) for magic, _ in DECOMPRESSORS):
            yield from (str(name) for name, _ in checked_members(archive, file))
        else:
            yield from _tar_names(archive, file)


def chunks(archive: Path, data: IO[bytes]) -> Iterator[bytes]:
    """A member's data, a little at a time.

    Raises:
        UserError: it is damaged.
    """
    with told_of_damage(archive):
        while chunk := data.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def told_of_damage(archive: Path) -> Iterator[None]:
    """Turns whatever reading an archive fails with into an error that names it."""
    try:
        yield
    except _NoArchiveError as error:
        raise BadFileError(f"{archive} is no .tar, .tar.gz, .tar.bz2, .tar.xz or .zip archive") from error
    except (*DAMAGE, *ODD_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 raise some without
            raise UserError(f"cannot read {archive}: {error.strerror}") from error
        raise BadFileError(f"{archive} is damaged or incomplete: download it again ({error})") from error


def _first_bytes(file: IO[bytes]) -> bytes:
    file.seek(0)
    start = file.read(10)
    file.seek(0)
    return start


def _outer_members(archive: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    start = _first_bytes(file)
    if start.startswith(ZIP_STARTS):
        yield from _zip_members(archive, file)
        return
    decompress = next((opener for magic, opener in DECOMPRESSORS if re.match(magic, start)), nullcontext)
    with decompress(file) as stream:
        yield from _tar_members(archive, cast(IO[bytes], stream))


def _inner_members(
    archive: Path, path: PurePosixPath, data: IO[bytes]
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    folder = path.with_suffix("")
    try:
        for name, inner in _tar_members(archive, data, f"{folder}/"):
            yield PurePosixPath(name), inner
    except _NoArchiveError as error:
        raise tarfile.ReadError(f"{path} in it is no tar") from error


def _zip_members(archive: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as zipped:
        for info in _zip_infos(archive, zipped):
            name = info.orig_filename
            with zipped.open(info) as data:
                yield name, data
                _exhaust(data)
                if data.tell() != info.file_size:
                    raise zipfile.BadZipFile(f"{name!a} is shorter than said")


def _zip_infos(archive: Path, zipped: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    for info in zipped.infolist():
        name = info.orig_filename  # the other one is cut off at a NUL
        if name.endswith("/"):
            continue
        _check(archive, name, is_regular=stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG))
        if info.flag_bits & ENCRYPTED:
            raise BadFileError(f"{archive} cannot be unpacked: its member {name!a} is encrypted")
        yield info


def _tar_names(archive: Path, file: IO[bytes]) -> Iterator[str]:
    source = _SeekableSource(file)
    with tarfile.open(fileobj=cast(IO[bytes], source), mode="r:", tarinfo=_StrictTarInfo) as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # typeshed lacks it
            tar.pax_headers.clear()  # type: ignore[attr-defined]  # a dict, which typeshed does not say
            if not info.isdir():
                _check(archive, info.name, info.isreg() and not info.issparse())
                yield info.name
            source.allowance = HEADER_BYTES


def _tar_members(archive: Path, stream: IO[bytes], within: str = "") -> Iterator[tuple[str, IO[bytes]]]:
    source = _Source(stream)
    with tarfile.open(
        fileobj=cast(IO[bytes], source), mode="r|", tarinfo=_StrictTarInfo, bufsize=CHUNK_BYTES
    ) as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # these would pile up in memory, and global headers too
            tar.pax_headers.clear()  # type: ignore[attr-defined]  # a dict, which typeshed does not say
            if not info.isdir():
                _check(archive, info.name, info.isreg() and not info.issparse())
                source.allowance = math.inf
                # A regular file always has data.
                with cast(IO[bytes], tar.extractfile(info)) as data:
                    yield within + info.name, data
                    _exhaust(data)
            source.allowance = HEADER_BYTES
    source.allowance = math.inf
    _exhaust(source)  # where it is compressed, its check sum comes last


def _check(archive: Path, name: str, is_regular: bool) -> None:
    if not is_safe(name):
        raise BadFileError(f"{archive} is refused: its member {name!a} could lead out of the folder")
    if not is_regular:
        raise BadFileError(f"{archive} is refused: its member {name!a} is a link, a device or sparse")


class _NoArchiveError(tarfile.ReadError):
    """What was read does not even begin with a header."""


class _StrictTarInfo(tarfile.TarInfo):
    """A header; one that is broken is an error, where tarfile would take it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Reads the next header."""
        try:
            info = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise
        except tarfile.HeaderError as error:
            is_first = tar.fileobj.tell() <= tarfile.BLOCKSIZE
            raise (_NoArchiveError if is_first else tarfile.ReadError)(str(error)) from error
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name!a} has a negative size")
        return info


class _Source:
    """What tarfile reads from, as far as its allowance goes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.allowance: float = HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Reads on."""
        data = self._stream.read(size)
        self.allowance -= len(data)
        if self.allowance < 0:
            raise tarfile.ReadError("a header does not end")
        return data


class _SeekableSource(_Source):
    """A source in which tarfile skips the members' data."""

    def read(self, size: int) -> bytes:
        """Read on; no more than the allowance is ever held in memory."""
        return super().read(int(min(size, self.allowance + 1)))

    def seek(self, position: int) -> int:
        """Go to a byte, counted from the start."""
        return self._stream.seek(position)

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._stream.tell()


def _exhaust(stream: IO[bytes] | _Source) -> None:
    while stream.read(CHUNK_BYTES):
        pass
