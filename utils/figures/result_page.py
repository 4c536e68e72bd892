"""A web page of what a search found: one file that shows everything and asks nothing of anybody.

All images are in the page itself. It runs no script and loads nothing, and tells the browser to allow
neither: image names come from anywhere and may hold anything.
"""

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from utils.figures.heat_map import CAPTION, COLORS
from utils.files.writing import replace_file
from utils.images.loading import Box
from utils.text import escape_misleading

THUMBNAIL_SIDE = 320
"""Longer side of an image in the page, in pixels, at most."""

JPEG_QUALITY = 80

BOX_COLOR = "#ffd400"

ALLOWED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may do with the page: show its own images in its own style."""

BEGIN = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">"""
"""First lines of each page."""


class Hit(NamedTuple):
    """An image in the page: one that was found, or the query."""

    rank: int | None
    """From 1; not shown of the query."""
    name: str
    """The path to show; any text, also one that stands for bytes which are no text."""
    score: float | None = None
    thumbnail: Image.Image | None = None
    heat: Image.Image | None = None


def write_page(path: Path, query: Hit, hits: Sequence[Hit], title: str, note: str) -> None:
    """Writes the results of a search as a page of HTML that stands by itself.

    Args:
        path: the file to write.
        query: what was searched for; its thumbnail shows its box, if it has one (`thumbnail`).
        hits: what was found, in the order to show.
        title: of the page.
        note: a line below it, such as how was searched.

    Raises:
        UserError: the file cannot be written.
    """
    with replace_file(path) as file:
        file.write(page(query, hits, title, note).encode())


def page(query: Hit, hits: Sequence[Hit], title: str, note: str) -> str:
    """Return the page that `write_page` writes, pure UTF-8."""
    from jinja2 import Environment, StrictUndefined  # not before a page is written, as Matplotlib below

    # Autoescaping turns every value into text; `escape_misleading` makes text of any file name.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"escape_misleading": escape_misleading, "data_uri": data_uri}
    template = files("utils.figures").joinpath("result_page.html.j2").read_text(encoding="utf-8")
    has_heat = any(hit.heat is not None for hit in (query, *hits))
    return environment.from_string(template).render(
        begin=BEGIN,
        title=title,
        note=note,
        query=query._replace(rank=None, score=None),
        hits=hits,
        has_heat=has_heat,
        colors=_scale_colors() if has_heat else [],
        caption=CAPTION,
    )


def thumbnail(pixels: np.ndarray, box: Box | None = None) -> Image.Image:
    """An image at the page's size, with a box drawn on it.

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
        # on a dark rim, to be seen on bright ground too
        draw.rectangle((left, top, right, bottom), outline="black", width=4)
        draw.rectangle((left, top, right, bottom), outline=BOX_COLOR, width=2)
    return image


def _scale_colors() -> list[str]:
    """Return the colours of the scale of a heat map, from dark to bright."""
    from matplotlib import colormaps  # not before a page with maps is written, as in `drawing`
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[COLORS](step / 8)) for step in range(9)]


def data_uri(image: Image.Image) -> str:
    """An image as a JPEG inside a URI, no larger than the page's size and without what else its file told."""
    plain = Image.fromarray(np.asarray(image.convert("RGB")))  # Pillow would keep a comment
    plain.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    plain.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
