"""A web page of what a search found: one file that shows everything and asks nothing of anybody.

All images are in the page itself. It runs no script and loads nothing, and tells the browser to allow
neither: image names come from anywhere and may hold anything.
"""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
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


STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d1d1b; --soft: #63635e;
  --line: #dcdcd6; --empty: #ecece7; }
@media (prefers-color-scheme: dark) { :root { --page: #161617; --card: #1f1f21; --ink: #e8e8e4;
  --soft: #a3a39c; --line: #363639; --empty: #2a2a2d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 32px 24px 56px; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; font-weight: 650; letter-spacing: -0.01em;
  overflow-wrap: anywhere; }
h2 { margin: 36px 0 12px; font-size: 1rem; font-weight: 650; }
p { margin: 6px 0 0; max-width: 72ch; color: var(--soft); overflow-wrap: anywhere; }
figure { margin: 0; padding: 10px; height: 100%; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
.query { max-width: 674px; }
ol { margin: 0; padding: 0; list-style: none; display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 288px), 1fr)); }
.images { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 6px; }
.images > * { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; border-radius: 4px;
  background: var(--empty); }
.none { display: grid; place-items: center; font-size: 0.8rem; color: var(--soft); }
figcaption { margin-top: 8px; font-size: 0.875rem; }
.numbers { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
.rank { font-weight: 650; }
.score { color: var(--soft); }
.name { display: block; color: var(--soft); overflow-wrap: anywhere; unicode-bidi: isolate; }
.scale { display: inline-block; width: 96px; height: 10px; margin-right: 8px; border-radius: 3px; }
@media (max-width: 480px) { main { padding: 20px 12px 40px; } h1 { font-size: 1.35rem; }
  h2 { margin-top: 26px; } }
"""


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
    """The page that `write_page` writes, pure UTF-8."""
    has_heat = any(hit.heat is not None for hit in (query, *hits))
    found = "".join(f"<li>{_figure(hit, has_heat)}</li>\n" for hit in hits)
    return f"""{BEGIN}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{_text(title)}</h1>
<p>{_text(note)}</p>
{_legend() if has_heat else ""}
<h2>Query</h2>
<div class="query">{_figure(query._replace(rank=None, score=None), has_heat)}</div>
<h2>Results</h2>
{f"<ol>{found}</ol>" if hits else "<p>Nothing was found.</p>"}
</main>
</body>
</html>
"""


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


def _text(text: str) -> str:
    return escape(escape_misleading(text))


def _figure(hit: Hit, has_heat: bool) -> str:
    """A hit's image, its heat map where the page has any, and what is known of it."""
    name = _text(hit.name)
    thumbnail_html = _img(hit.thumbnail, name, "no image")
    heat = _img(hit.heat, f"attention in {name}", "no map") if has_heat else ""
    rank = "" if hit.rank is None else f'<span class="rank">{hit.rank}</span>'
    score = "" if hit.score is None else f'<span class="score">{hit.score:.4f}</span>'
    return (
        f'<figure><div class="images">{thumbnail_html}{heat}</div><figcaption>'
        f'<span class="numbers">{rank}{score}</span><span class="name">{name}</span></figcaption></figure>'
    )


def _img(image: Image.Image | None, description: str, absent: str) -> str:
    if image is None:
        return f'<span class="none">{absent}</span>'
    return f'<img src="{data_uri(image)}" alt="{description}">'


def _legend() -> str:
    colors = ", ".join(to_hex(colormaps[COLORS](step / 8)) for step in range(9))
    scale = f'<span class="scale" style="background: linear-gradient(to right, {colors})"></span>'
    return f"<p>{scale}Attention, {CAPTION}.</p>"


def data_uri(image: Image.Image) -> str:
    """An image as a JPEG inside a URI, no larger than the page's size and without what else its file told."""
    plain = Image.fromarray(np.asarray(image.convert("RGB")))  # Pillow would keep a comment
    plain.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    plain.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
