"""Reading of untrusted tar and zip archives; each member is checked before it is returned."""

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

ENCRYPTED = 1  # bit of the flags of a zip member

CHUNK_BYTES = 2**16
HEADER_BYTES = 2**17
"""Maximum bytes of headers before a member of a tar, since long names and sparse maps are kept in memory."""

UNSAFE = re.compile(r"^/|^[A-Za-z]:|[\\\x00-\x1f\x7f-\x9f]|(^|/)\.\.(/|\Z)|^[./]*\Z")
"""Paths that are absolute, have a drive, a backslash, control characters or "..", or name no file."""

INVALID_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError)
INVALID_HEADER = (ValueError, LookupError, OverflowError, RecursionError, NotImplementedError)
"""Other exceptions that tarfile and zipfile raise on invalid headers."""


def is_safe(name: str | PurePosixPath) -> bool:
    """Return True if a path names a file below the folder that it is relative to, on any system."""
    return not UNSAFE.search(str(name))


def checked_members(
    archive: Path, file: IO[bytes], nested: bool = False
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Yield the name and data of each regular file; the data can be read until the next file is requested.

    Args:
        archive: the path of the archive, for error messages.
        file: the open archive; a tar is read once, from start to end.
        nested: replace a member x.tar by the files in it, named x/<name>.

    Raises:
        UserError: the archive is not valid, cannot be read or has an unsafe member.
    """
    with archive_errors(archive):
        for name, data in _outer_members(archive, file):
            path = PurePosixPath(name)
            if nested and path.suffix == ".tar":
                yield from _inner_members(archive, path, data)
            else:
                yield path, data


def checked_names(archive: Path, file: IO[bytes]) -> Iterator[str]:
    """Yield the names of the regular files of an archive; data are read only if a tar is compressed.

    Raises:
        UserError: as for `checked_members`, except for invalid data that are not read.
    """
    with archive_errors(archive):
        start = _first_bytes(file)
        if start.startswith(ZIP_STARTS):
            with zipfile.ZipFile(file) as zipped:
                yield from (info.orig_filename for info in _zip_infos(archive, zipped))
        elif any(re.match(magic, start) for magic, _ in DECOMPRESSORS):
            yield from (str(name) for name, _ in checked_members(archive, file))
        else:
            yield from _tar_names(archive, file)


def read_chunks(archive: Path, data: IO[bytes]) -> Iterator[bytes]:
    """Yield the data of a member in chunks.

    Raises:
        UserError: the data are not valid.
    """
    with archive_errors(archive):
        while chunk := data.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def archive_errors(archive: Path) -> Iterator[None]:
    """Convert the exceptions of a block that reads an archive to a UserError that names the archive."""
    try:
        yield
    except _NoArchiveError as error:
        raise BadFileError(f"{archive} is not a .tar, .tar.gz, .tar.bz2, .tar.xz or .zip archive") from error
    except (*INVALID_ARCHIVE, *INVALID_HEADER, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 raise OSError without one
            raise UserError(f"cannot read {archive}: {error.strerror}") from error
        raise BadFileError(f"{archive} is unreadable or incomplete: download it again ({error})") from error


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
        raise tarfile.ReadError(f"its member {path} is not a tar") from error


def _zip_members(archive: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as zipped:
        for info in _zip_infos(archive, zipped):
            name = info.orig_filename
            with zipped.open(info) as data:
                yield name, data
                _exhaust(data)
                if data.tell() != info.file_size:
                    raise zipfile.BadZipFile(f"{name!a} is shorter than its header says")


def _zip_infos(archive: Path, zipped: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    for info in zipped.infolist():
        name = info.orig_filename  # info.filename is cut off at a NUL
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
            tar.pax_headers.clear()  # type: ignore[attr-defined]  # typeshed does not declare it as a dict
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
            tar.members.clear()  # type: ignore[attr-defined]  # or members and headers accumulate in memory
            tar.pax_headers.clear()  # type: ignore[attr-defined]  # typeshed does not declare it as a dict
            if not info.isdir():
                _check(archive, info.name, info.isreg() and not info.issparse())
                source.allowance = math.inf
                # A regular file always has data.
                with cast(IO[bytes], tar.extractfile(info)) as data:
                    yield within + info.name, data
                    _exhaust(data)
            source.allowance = HEADER_BYTES
    source.allowance = math.inf
    _exhaust(source)  # the checksum of a compressed file is at its end


def _check(archive: Path, name: str, is_regular: bool) -> None:
    if not is_safe(name):
        raise BadFileError(f"{archive} is refused: the path of its member {name!a} is unsafe")
    if not is_regular:
        raise BadFileError(f"{archive} is refused: its member {name!a} is a link, a device or a sparse file")


class _NoArchiveError(tarfile.ReadError):
    """Raised for data that do not start with a header of a tar."""


class _StrictTarInfo(tarfile.TarInfo):
    """A header of a tar. An invalid header is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header."""
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
    """A stream for tarfile that can be read until its allowance, in bytes, is used up."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.allowance: float = HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._stream.read(size)
        self.allowance -= len(data)
        if self.allowance < 0:
            raise tarfile.ReadError("a header does not end")
        return data


class _SeekableSource(_Source):
    """A source in which tarfile can skip the data of members."""

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes, but not more than the allowance, which limits the memory in use."""
        return super().read(int(min(size, self.allowance + 1)))

    def seek(self, position: int) -> int:
        """Move to a position in bytes from the start."""
        return self._stream.seek(position)

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._stream.tell()


def _exhaust(stream: IO[bytes] | _Source) -> None:
    while stream.read(CHUNK_BYTES):
        pass
