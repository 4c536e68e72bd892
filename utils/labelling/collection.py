"""The images below a user's folder, with the names that they have in the data set."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.images.listing import images_below, report_left_out
from utils.images.loading import Box, UnreadableImageError, image_size
from utils.prepare.layout import joined_name
from utils.text import first_names, has_control_characters

log = logging.getLogger(__name__)


class CollectionImage(NamedTuple):
    """A readable image."""

    path: Path
    name: str
    """Name in the data set: the folders and the file name without its suffix, joined by underscores."""
    box: Box
    """The complete image, in pixels."""


Collection = Mapping[str, CollectionImage]
"""Images by their paths relative to the folder, with `/` between folders, folder by folder."""


def read_collection(folder: Path) -> Collection:
    """List the images in a folder and in all folders below it, and read their sizes.

    Files that cannot be opened as images are left out with a note.

    Raises:
        UserError: there are no images, two would have the same name, or a label cannot hold a name.
    """
    contents = images_below(folder)
    report_left_out(contents, folder)
    collection: dict[str, CollectionImage] = {}
    named: dict[str, Path] = {}
    unreadable = []
    for path in contents.images:
        relative = path.relative_to(folder)
        try:
            height, width = image_size(path)
        except UnreadableImageError:
            unreadable.append(str(relative))
            continue
        name = Path(joined_name(relative)).stem.strip()
        if has_control_characters(name):
            raise UserError(f"{str(path)!a}: a label cannot hold this name: rename the file or its folder")
        if name in named:
            raise UserError(f"{named[name]} and {path} would have the same name, {name}: rename one of them")
        named[name] = path
        collection[relative.as_posix()] = CollectionImage(path, name, (0, 0, width, height))
    if unreadable:
        log.warning("note: left out %d unreadable images (%s)", len(unreadable), first_names(unreadable))
    if not collection:
        raise UserError(f"no images in {folder} or the folders in it")
    return collection
