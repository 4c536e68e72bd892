"""HTML page with the results of a search, in one file.

The page contains its images, has no scripts and loads no other files. It also forbids the browser to run
scripts or load files, since the names of images are not trusted.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from utils.figures.heat_map import CAPTION, scale_colors
from utils.files.writing import replace_file
from utils.images.loading import Box
from utils.text import escape_misleading

THUMBNAIL_SIDE = 320
"""Largest longer side of an image in the page, in pixels."""

EVIDENCE_SIDE = 960
"""Largest longer side of a figure of what was matched, in pixels."""

JPEG_QUALITY = 80

BOX_COLOR = "#ffd400"

ALLOWED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy of the page, which allows only embedded images and styles."""

BEGIN = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">"""
"""First lines of each page, by which a page is recognised."""


class Evidence(NamedTuple):
    """What a re-ranking matched in an image."""

    figure: Image.Image
    """The query and the image with what was matched; see `EVIDENCE_SIDE`."""
    text: str


class Hit(NamedTuple):
    """An image in the page: a result or the query."""

    rank: int | None
    """Rank of a result, from 1; None for the query."""
    name: str
    """Path to show, which may contain undecodable bytes of file names as surrogate escapes."""
    similarity: float | None = None
    thumbnail: Image.Image | None = None
    heat: Image.Image | None = None
    evidence: Evidence | None = None


class Answer(NamedTuple):
    """A query and its results."""

    query: Hit
    """The query, whose thumbnail shows its box; see `thumbnail`."""
    hits: Sequence[Hit]
    """The results, in the order to show."""


def write_page(
    path: Path,
    answers: Iterable[Answer],
    title: str,
    note: str,
    has_heat: bool = False,
    legend: str | None = None,
) -> None:
    """Write the results of searches as an HTML page.

    Args:
        path: the file to write.
        answers: the queries with their results, of which one at a time is kept in memory.
        title: title of the page.
        note: line below the title, for example about the index.
        has_heat: whether to show heat maps.
        legend: description of the evidence, if there is any.

    Raises:
        UserError: the file cannot be written.
    """
    with replace_file(path) as file:
        for text in page(answers, title, note, has_heat, legend):
            file.write(text.encode())


def page(
    answers: Iterable[Answer], title: str, note: str, has_heat: bool, legend: str | None
) -> Iterator[str]:
    """Yield parts of the page that `write_page` writes, as text without surrogate escapes."""
    from jinja2 import Environment, StrictUndefined  # here, since the import takes long

    # Autoescaping escapes HTML in every value; `escape_misleading` escapes undecodable bytes of file names.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"escape_misleading": escape_misleading, "data_uri": data_uri}
    template = files("utils.figures").joinpath("result_page.html.j2").read_text(encoding="utf-8")
    yield from environment.from_string(template).generate(
        begin=BEGIN,
        title=title,
        note=note,
        answers=answers,
        has_heat=has_heat,
        colors=scale_colors() if has_heat else [],
        caption=CAPTION,
        legend=legend,
        evidence_side=EVIDENCE_SIDE,
    )


def thumbnail(pixels: np.ndarray, box: Box | None = None) -> Image.Image:
    """Return an image resized for the page, with a box drawn on it.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        box: x1, y1, x2, y2 in pixels of the image.
    """
    image = Image.fromarray(pixels)
    old = np.array(image.size * 2)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    if box is not None:
        size = np.array(image.size * 2)
        left, top, right, bottom = np.clip(np.rint(box * size / old), 0, size - 1).tolist()
        draw = ImageDraw.Draw(image)
        # with a black outline, to be visible on bright images
        draw.rectangle((left, top, right, bottom), outline="black", width=4)
        draw.rectangle((left, top, right, bottom), outline=BOX_COLOR, width=2)
    return image


def data_uri(image: Image.Image, side: int = THUMBNAIL_SIDE) -> str:
    """Return an image as a JPEG in a data URI, `side` pixels wide and high at most and without metadata."""
    plain = Image.fromarray(np.asarray(image.convert("RGB")))  # Pillow would keep a comment
    plain.thumbnail((side, side))
    file = io.BytesIO()
    plain.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
