"""Matches of queries as lines of text and as JSON."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files.outputs import check_output_file
from utils.files.records import write_json
from utils.image_index.image_index import QueryMatches
from utils.text import escape_misleading

JSON_BEGIN = b'{\n  "query": "'
"""First bytes of a JSON file of one query, by which such a file is recognised."""

SEVERAL_JSON_BEGIN = b'{\n  "queries": [\n'
"""First bytes of a JSON file of several queries."""


def check_outputs(json: Path | None, html: Path | None) -> None:
    """Check that the file of --json can be written and is not the file of --html.

    Raises:
        UserError: it cannot, or it is.
    """
    if json is None:
        return
    check_output_file(json, JSON_BEGIN, SEVERAL_JSON_BEGIN)
    if html is not None and os.path.realpath(json) == os.path.realpath(html):
        raise UserError(f"--json and --html name the same file, {json}: name two files")


def match_lines(results: Sequence[QueryMatches], one_image: bool) -> Iterator[str]:
    """Yield one line per match: rank, similarity and path, and the path of the query unless there is one.

    Args:
        results: the queries and their matches.
        one_image: whether the user named one image.
    """
    for query, matches in results:
        of_query = "" if one_image else f"\t{escape_misleading(str(query.path))}"
        for match in matches:
            path = escape_misleading(str(match.path))
            yield f"{match.rank}\t{match.similarity:.4f}\t{path}{of_query}"


def write_matches(path: Path, results: Sequence[QueryMatches], one_image: bool) -> None:
    """Write the matches of a query as JSON, or the list `queries` of these for several queries.

    Args:
        path: the file.
        results: the queries and their matches.
        one_image: whether the user named one image.

    Raises:
        UserError: the file cannot be written.
    """
    contents = [
        {
            "query": str(query.path),
            "box": query.box,
            "matches": [match._asdict() | {"path": str(match.path)} for match in matches],
        }
        for query, matches in results
    ]
    write_json(path, contents[0] if one_image else {"queries": contents})
