"""Lists of image files: the one place that decides which files of a folder are images.

A file is an image by its suffix or, if its name has none, by its first bytes. Hidden files and folders are
passed over. A pipe, a device, a socket or a dangling link with an image's suffix is listed like any image: it
turns out to be unreadable when it is opened.
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
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"  # the size of the header that follows
    rb"|P[1-6]\s+[#\d]"  # PBM, PGM, PPM
    rb"|II[*+]\0|MM\0[*+]"  # TIFF and BigTIFF
    rb"|RIFF.{4}WEBP"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"  # JPEG 2000, with and without a container
    rb"|.{4}ftypavi[fs]",
    re.DOTALL,
)
BYTES_READ = 32

THUMBNAIL_FOLDERS = frozenset({"@eadir", "@__thumb", "thumb", "thumbs", "thumbnail", "thumbnails"})
"""Lower-case names of folders in which Synology, QNAP and photo programs keep thumbnails."""

THUMBNAIL_NAME = re.compile(r".[_-]thumb(s|nail|nails)?\Z", re.IGNORECASE)
"""The end of a thumbnail's name without its suffix, and of a folder's name."""


class FolderContents(NamedTuple):
    """Images, and what is none; each list is sorted by path, hidden files and folders are in none of them."""

    images: list[Path]
    others: list[Path]
    """Files that are no images, and folders that cannot be listed."""
    folders: list[Path]
    """Folders that were not searched, since only one folder was asked for."""
    thumbnails: list[Path]
    """Thumbnails, and folders of thumbnails; none if only one folder was asked for."""


def images_in(folder: Path) -> FolderContents:
    """List the images that lie right in a folder; every image counts, thumbnails as well.

    Raises:
        UserError: the folder cannot be listed.
    """
    contents = FolderContents([], [], [], [])
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error
    for entry in sorted(visible, key=lambda entry: entry.name):
        path = folder / entry.name
        if _is_folder(entry):
            contents.folders.append(path)
        elif _is_image(path, entry.name):
            contents.images.append(path)
        else:
            contents.others.append(path)
    return contents


def images_below(folder: Path) -> FolderContents:
    """List the images in a folder and in all folders below it, but for thumbnails.

    Links are followed. A folder to which several links lead, or that contains a link to itself, is searched
    once.

    Raises:
        UserError: the folder cannot be listed.
    """
    found = FolderContents([], [], [], [])
    seen = {os.path.realpath(folder)}
    pending = [folder]
    for parent in pending:  # which grows
        try:
            contents = images_in(parent)
        except UserError:
            if parent is folder:
                raise
            found.others.append(parent)
            continue
        found.others.extend(contents.others)
        for path in contents.images:
            (
                found.thumbnails if is_thumbnail(path.name.rpartition(".")[0] or path.name) else found.images
            ).append(path)
        for path in contents.folders:
            target = os.path.realpath(path)
            if is_thumbnail(path.name):
                found.thumbnails.append(path)
            elif target not in seen:
                seen.add(target)
                pending.append(path)
    for paths in found:
        paths.sort(key=lambda path: str(path).replace(os.sep, "\0"))  # folder by folder
    return found


def is_thumbnail(name: str) -> bool:
    """Tell whether programs give this name, a folder's or a file's without suffix, to thumbnails."""
    return name.lower() in THUMBNAIL_FOLDERS or bool(THUMBNAIL_NAME.search(name))


def report_thumbnails(contents: FolderContents, folder: Path) -> None:
    """Log a note on the thumbnails that were left out, if any."""
    if contents.thumbnails:
        log.warning(
            "note: left out %d thumbnails or folders of thumbnails (%s): rename those that are not",
            len(contents.thumbnails),
            first_names([str(path.relative_to(folder)) for path in contents.thumbnails]),
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to each other
        return False


def _is_image(path: Path, name: str) -> bool:
    _, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" in IMAGE_SUFFIXES if dot else _begins_as_image(path)


def _begins_as_image(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return FIRST_BYTES.match(file.read(BYTES_READ)) is not None
    except OSError:
        return False
