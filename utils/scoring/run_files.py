"""Run files in the form of TREC: rankings of a system as text, which other tools read and write.

Each line is `query Q0 image rank similarity system`, with the rank from 1, as for trec_eval
(https://github.com/usnistgov/trec_eval). White space and percent signs in names are written as %20, %25, ....
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import numpy as np

from utils.errors import BadFileError
from utils.files.reading import open_checked, parse_index, parse_number, read_text
from utils.text import shorten

SYSTEM = "regional-attention"
"""Last word of each line that this program writes."""

MOST_RANKS = 10**12
"""More than the ranks of any ranking."""


class Row(NamedTuple):
    """One retrieved image."""

    rank: int
    similarity: float
    image: str


class ScoredRanking(NamedTuple):
    """The ranking of a query, with similarities."""

    query: str
    images: Sequence[str]
    """Names of the images, the most similar one first."""
    similarities: np.ndarray
    """(N,)."""


def run_lines(ranking: ScoredRanking) -> str:
    """Return the lines of a run file for one query, without images that an approximate search left out."""
    query = _as_word(ranking.query)
    return "".join(
        f"{query} Q0 {_as_word(image)} {rank} {similarity:.9g} {SYSTEM}\n"
        for rank, (image, similarity) in enumerate(
            zip(ranking.images, ranking.similarities.tolist(), strict=True), start=1
        )
        if math.isfinite(similarity)
    )


def check_run(path: Path) -> None:
    """Check, without reading it, that a run file exists and can be opened.

    Raises:
        UserError: it is missing or cannot be opened.
    """
    try:
        with open_checked(path):
            pass
    except FileNotFoundError as error:
        raise BadFileError(f"{path} is missing") from error


def read_run(path: Path) -> dict[str, list[str]]:
    """Return the names of the images by rank, per query.

    Lines may be in any order. The rank decides, and the similarity must not rise with it.

    Raises:
        UserError: the file is missing or unreadable, a line has another form, a query has two images of one
            rank or one image twice, or the similarities of a query rise.
    """
    rows: dict[str, list[Row]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            query, row = _parse_line(path, number, line)
            rows.setdefault(query, []).append(row)
    if not rows:
        raise BadFileError(f"{path} has no rankings")
    return {query: _ranking(path, query, of_query) for query, of_query in rows.items()}


def _parse_line(path: Path, number: int, line: str) -> tuple[str, Row]:
    """Return the query and the row of a line.

    Raises:
        BadFileError: the line has another form.
    """
    words = line.split()
    try:
        query, _, image, rank, similarity, _ = words
        return unquote(query), Row(parse_index(rank, MOST_RANKS), parse_number(similarity), unquote(image))
    except ValueError as error:
        raise BadFileError(
            f"{path}, line {number}: {shorten(line)} is not 'query Q0 image rank similarity system'"
        ) from error


def _ranking(path: Path, query: str, rows: Sequence[Row]) -> list[str]:
    """Return the names in the rows of a query, by rank.

    Raises:
        UserError: as for `read_run`.
    """
    rows = sorted(rows, key=lambda row: row.rank)
    for row, following in pairwise(rows):
        if row.rank == following.rank:
            raise BadFileError(f"{path}: query {shorten(query)} has two images of rank {row.rank}")
        if following.similarity > row.similarity:
            raise BadFileError(
                f"{path}: the similarity of query {shorten(query)} rises from rank {row.rank} "
                f"to {following.rank}"
            )
    images = [row.image for row in rows]
    if len(set(images)) < len(images):
        twice = Counter(images).most_common(1)[0][0]
        raise BadFileError(f"{path}: query {shorten(query)} has image {shorten(twice)} twice")
    return images


def _as_word(name: str) -> str:
    """Return a name without white space, from which `unquote` makes the name again."""
    return re.sub(r"[\s%]", lambda match: quote(match[0]), name)
