"""Groups of near duplicates in an index: the command `duplicates`."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.files.outputs import check_output_file
from utils.files.records import write_json
from utils.image_index.image_index import read_index
from utils.photo_search.excluding import without_excluded
from utils.photo_search.options import ROUNDING, DuplicatesOptions
from utils.search.duplicates import duplicate_groups
from utils.text import escape_misleading

log = logging.getLogger(__name__)

JSON_BEGIN = b'{\n  "threshold": '
"""First bytes of a JSON file of groups, by which such a file is recognised."""


class Duplicate(NamedTuple):
    """An image of a group: its similarity to the most similar other image of the group, and its file."""

    similarity: float
    path: Path


def find_duplicates(options: DuplicatesOptions) -> list[list[Duplicate]]:
    """Return groups of near duplicates of an index, and write them as JSON if --json is given.

    Images are in one group if pairs of images of at least the threshold's similarity connect them.

    Returns:
        The images of each group, two or more, in the order of the names; the groups in the order of their
        first images.

    Raises:
        UserError: there is no index, or the file cannot be written.
    """
    if options.json is not None:
        check_output_file(options.json, JSON_BEGIN)
    index = without_excluded(read_index(options.index), options.exclude)
    rows, similarities = duplicate_groups(index.rows, options.threshold - ROUNDING)
    groups = [[Duplicate(float(similarities[row]), index.path(row)) for row in group] for group in rows]
    if changed := sum(index.count_changed(group.tolist()) for group in rows):
        log.warning("note: %d of these images were deleted or changed after indexing: index again", changed)
    if options.json is not None:
        write_groups(options.json, groups, options.threshold)
    return groups


def write_groups(path: Path, groups: Sequence[Sequence[Duplicate]], threshold: float) -> None:
    """Write groups and the threshold as JSON.

    Raises:
        UserError: the file cannot be written.
    """
    contents = [[one._asdict() | {"path": str(one.path)} for one in group] for group in groups]
    write_json(path, {"threshold": threshold, "groups": contents})


def group_lines(groups: Sequence[Sequence[Duplicate]]) -> Iterator[str]:
    """Yield one line per image: the number of its group, from 1, its similarity and its path."""
    for number, group in enumerate(groups, start=1):
        for one in group:
            yield f"{number}\t{one.similarity:.4f}\t{escape_misleading(str(one.path))}"
