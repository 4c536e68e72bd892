"""Lists of the image files in folders.

A file is an image by its suffix or, if its name has no suffix, by its first bytes. Hidden files and folders
are left out. HEIC files are images if they can be read. RAW files and the videos of live photos are listed
separately. Pipes, devices, sockets and broken links with the suffix of an image are listed as images, and
are unreadable when they are opened.
"""

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.files.regular import open_regular
from utils.images.heif import HEIF_BYTES, HEIF_SUFFIXES, INSTRUCTIONS, is_heif_readable
from utils.text import first_names

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}
    | {".tif", ".tiff", ".webp", ".mpo", ".jp2", ".j2k", ".avif"}
)

RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw"}
    | {".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""Suffixes of files with the unprocessed values of a camera's sensor."""

VIDEO_SUFFIXES = frozenset({".mov", ".mp4"})
"""Suffixes of the video of a live photo, which has the name of its image."""

FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"  # BMP, with the size of its second header
    rb"|P[1-6]\s+[#\d]"  # PBM, PGM, PPM
    rb"|II[*+]\0|MM\0[*+]"  # TIFF and BigTIFF
    rb"|RIFF.{4}WEBP"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"  # JPEG 2000, with and without a container
    rb"|.{4}ftypavi[fs]",  # AVIF
    re.DOTALL,
)
FIRST_BYTES_COUNT = 64

THUMBNAIL_FOLDERS = frozenset({"@eadir", "@__thumb", "thumb", "thumbs", "thumbnail", "thumbnails"})
"""Names, in lower case, of the folders in which Synology, QNAP and photo programs keep thumbnails."""

THUMBNAIL_NAME = re.compile(r".[_-]thumb(s|nail|nails)?\Z", re.IGNORECASE)
"""End of the name of a thumbnail, without its suffix, or of a folder of thumbnails."""


class FolderContents(NamedTuple):
    """Contents of a folder without hidden files and folders; each list is sorted by path."""

    images: list[Path]
    others: list[Path]
    """Files that are not images, and folders that cannot be listed."""
    folders: list[Path]
    """Folders that were not searched; only `images_in` lists them."""
    thumbnails: list[Path]
    """Thumbnails and folders of thumbnails; only `images_below` lists them."""
    heif: list[Path]
    """HEIC images, if they cannot be read."""
    raw: list[Path]
    """RAW files."""
    live_videos: list[Path]
    """Videos of live photos."""

    @classmethod
    def empty(cls) -> "FolderContents":
        """Return the contents of an empty folder."""
        return cls([], [], [], [], [], [], [])

    def extend(self, contents: "FolderContents") -> None:
        """Append the contents of another folder."""
        for paths, more in zip(self, contents, strict=True):
            paths.extend(more)


def images_in(folder: Path) -> FolderContents:
    """List the images directly in a folder, including thumbnails.

    Raises:
        UserError: the folder cannot be listed.
    """
    contents = FolderContents.empty()
    try:
        with os.scandir(folder) as items:
            visible = [item for item in items if not item.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error
    videos = []
    for item in sorted(visible, key=lambda item: item.name):
        path = folder / item.name
        if _is_folder(item):
            contents.folders.append(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            videos.append(path)
        else:
            _list_of_file(contents, path).append(path)
    stems = {path.stem.lower() for path in (*contents.images, *contents.heif)} if videos else set()
    for path in videos:
        (contents.live_videos if path.stem.lower() in stems else contents.others).append(path)
    contents.others.sort(key=lambda path: path.name)
    return contents


def images_below(folder: Path) -> FolderContents:
    """List the images in a folder and in all folders below it, without thumbnails.

    Links are followed. A folder is searched once, even if several links point to it or it links to itself.

    Raises:
        UserError: the folder cannot be listed.
    """
    result = FolderContents.empty()
    seen = {os.path.realpath(folder)}
    pending = [folder]
    for parent in pending:  # the loop appends to it
        try:
            contents = images_in(parent)
        except UserError:
            if parent is folder:
                raise
            result.others.append(parent)
            continue
        result.extend(contents._replace(images=[], heif=[], folders=[]))
        for images, listed in ((contents.images, result.images), (contents.heif, result.heif)):
            for path in images:
                name = path.name.rpartition(".")[0] or path.name
                (result.thumbnails if is_thumbnail(name) else listed).append(path)
        for path in contents.folders:
            target = os.path.realpath(path)
            if is_thumbnail(path.name):
                result.thumbnails.append(path)
            elif target not in seen:
                seen.add(target)
                pending.append(path)
    for paths in result:
        paths.sort(key=lambda path: str(path).replace(os.sep, "\0"))  # folder by folder
    return result


def is_thumbnail(name: str) -> bool:
    """Return True for a usual name of thumbnails: of a folder, or of a file without its suffix."""
    return name.lower() in THUMBNAIL_FOLDERS or bool(THUMBNAIL_NAME.search(name))


def report_left_out(contents: FolderContents, folder: Path) -> None:
    """Log a note on each kind of images that were left out, if any: thumbnails, HEIC images, RAW files."""

    def named(paths: list[Path], kind: str) -> str:
        return f"{len(paths)} {kind} ({first_names([str(path.relative_to(folder)) for path in paths])})"

    if contents.thumbnails:
        thumbnails = named(contents.thumbnails, "thumbnails or folders of thumbnails")
        log.warning("note: left out %s: rename them to include them", thumbnails)
    if contents.heif:
        images = named(contents.heif, "HEIC images")
        log.warning("note: left out %s, which need the package pillow-heif: %s", images, INSTRUCTIONS)
    raw = [named(contents.raw, "RAW files")] if contents.raw else []
    videos = [named(contents.live_videos, "videos of live photos")] if contents.live_videos else []
    if raw or videos:
        log.warning("note: left out %s", " and ".join(raw + videos))


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # links in a cycle
        return False


def _list_of_file(contents: FolderContents, path: Path) -> list[Path]:
    """Return the list of the contents that a file belongs to."""
    _, dot, suffix = path.name.rpartition(".")
    suffix = f".{suffix.lower()}" if dot else ""
    if suffix in RAW_SUFFIXES:
        return contents.raw
    start = b"" if suffix else _first_bytes(path)
    if suffix in HEIF_SUFFIXES or HEIF_BYTES.match(start):
        return contents.images if is_heif_readable() else contents.heif
    return contents.images if suffix in IMAGE_SUFFIXES or FIRST_BYTES.match(start) else contents.others


def _first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file; nothing if it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(FIRST_BYTES_COUNT)
    except OSError:
        return b""
