"""Lists of the image files in folders.

A file is an image by its suffix or, if its name has no suffix, by its first bytes. Hidden files and folders
are left out. Pipes, devices, sockets and broken links with the suffix of an image are listed as images, and
are unreadable when they are opened.
"""

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.files.regular import open_regular
from utils.text import first_names

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}
    | {".tif", ".tiff", ".webp", ".mpo", ".jp2", ".j2k", ".avif"}
)

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
FIRST_BYTES_COUNT = 32

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


def images_in(folder: Path) -> FolderContents:
    """List the images directly in a folder, including thumbnails.

    Raises:
        UserError: the folder cannot be listed.
    """
    contents = FolderContents([], [], [], [])
    try:
        with os.scandir(folder) as items:
            visible = [item for item in items if not item.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error
    for item in sorted(visible, key=lambda item: item.name):
        path = folder / item.name
        if _is_folder(item):
            contents.folders.append(path)
        elif _is_image(path, item.name):
            contents.images.append(path)
        else:
            contents.others.append(path)
    return contents


def images_below(folder: Path) -> FolderContents:
    """List the images in a folder and in all folders below it, without thumbnails.

    Links are followed. A folder is searched once, even if several links point to it or it links to itself.

    Raises:
        UserError: the folder cannot be listed.
    """
    result = FolderContents([], [], [], [])
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
        result.others.extend(contents.others)
        for path in contents.images:
            name = path.name.rpartition(".")[0] or path.name
            (result.thumbnails if is_thumbnail(name) else result.images).append(path)
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


def report_thumbnails(contents: FolderContents, folder: Path) -> None:
    """Log a note on the thumbnails that were left out, if any."""
    if contents.thumbnails:
        log.warning(
            "note: left out %d thumbnails or folders of thumbnails (%s): rename them to include them",
            len(contents.thumbnails),
            first_names([str(path.relative_to(folder)) for path in contents.thumbnails]),
        )


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # links in a cycle
        return False


def _is_image(path: Path, name: str) -> bool:
    _, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" in IMAGE_SUFFIXES if dot else _starts_like_image(path)


def _starts_like_image(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return FIRST_BYTES.match(file.read(FIRST_BYTES_COUNT)) is not None
    except OSError:
        return False
