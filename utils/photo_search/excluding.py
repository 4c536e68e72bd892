"""Patterns of the images to leave out."""

import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from pathlib import PurePath
from unicodedata import normalize

import numpy as np

from utils.image_index.image_index import ImageIndex
from utils.text import shorten

log = logging.getLogger(__name__)


def excluder(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that tells whether an image is left out, by its path within the folder.

    A pattern without `/` is compared with the name of the image and of each folder that contains it. A
    pattern with `/` is compared with the paths of the image and of these folders; it may begin with `/` or
    `./`. All images in a matching folder are left out. `*` stands for any characters, also `/`, `?` for one
    character, `[abc]` for one of several. Upper and lower case differ. Letters with accents may be composed
    or, as in names written by macOS, decomposed.

    Args:
        patterns: the patterns.
    """
    in_any_folder = _any_of([one.rstrip("/") for one in patterns if "/" not in one.rstrip("/")])
    from_top = _any_of([one.removeprefix("./").strip("/") for one in patterns if "/" in one.rstrip("/")])

    def is_excluded(name: str) -> bool:
        parts = PurePath(normalize("NFC", name)).parts
        paths = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
        return any(map(in_any_folder, parts)) or any(map(from_top, paths))

    return is_excluded


def note_unmatched(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Log a note on the patterns that leave out none of some images.

    Args:
        patterns: the patterns.
        names: paths of the images within the folder.
    """
    if unmatched := [pattern for pattern in patterns if not any(map(excluder([pattern]), names))]:
        log.warning(
            "note: no image is left out by exclude %s: give names, or paths within the indexed folder",
            ", ".join(map(shorten, unmatched)),
        )


def without_excluded(index: ImageIndex, patterns: Sequence[str]) -> ImageIndex:
    """Return the images of an index that no pattern leaves out, see `excluder`."""
    if not patterns:
        return index
    note_unmatched(patterns, index.names)
    is_excluded = excluder(patterns)
    kept = np.array([row for row, name in enumerate(index.names) if not is_excluded(name)], np.int64)
    return dataclasses.replace(
        index,
        names=[index.names[row] for row in kept],
        keys=[index.keys[row] for row in kept],
        rows=index.rows.selected(kept),
        version=None,  # the approximate index belongs to all images
    )


def _any_of(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a text matches one of some patterns."""
    expressions = [re.compile(translate(normalize("NFC", pattern))) for pattern in patterns]
    return lambda text: any(expression.match(text) for expression in expressions)
