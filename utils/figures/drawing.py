"""Figures for papers: rankings, precision over recall, attention; as PNG or PDF, the same bytes each time.

A line style or a mark repeats what each color says, so that figures can be printed in grey.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from utils.errors import UserError
from utils.figures.heat_map import blended_colors, heat_map, heat_range
from utils.files.writing import replace_file
from utils.images.loading import Box
from utils.scoring.precision import precision_around

# Matplotlib is imported by the functions that draw: runs that draw nothing save the time, and its notices.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["positive", "junk", "wrong"]

RESULTS_SHOWN = 10

RESOLUTION = 300
"""Pixels an inch."""

UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "jpg": None}
"""By file type what to leave out of a figure's metadata, as it would differ from day to day."""

TILE = (0.68, 0.51)
"""Width and height of an image in a strip, in inches: eleven fit a page of a paper."""

FRAMES = {
    "query": {"edgecolor": "#2158c4", "linewidth": 1},
    "positive": {"edgecolor": "#2e9940", "linewidth": 1},
    "junk": {"edgecolor": "#808080", "linewidth": 1.2, "linestyle": (0, (1, 1))},
    "wrong": {"edgecolor": "#c62f26", "linewidth": 2.4},
}
"""How the frame of each kind of image is drawn."""

MARKS = {"positive": "+", "junk": "junk", "wrong": "×"}

CURVES = (
    ("black", "-"),
    ("#d55e00", "--"),
    ("#0072b2", "-."),
    ("#009e73", ":"),
    ("#cc79a7", (0, (6, 1, 1, 1, 1, 1))),
)
"""Colors and line styles of curves. Color-blind readers can tell the colors apart (Okabe and Ito)."""


class Result(NamedTuple):
    """An image that was found."""

    pixels: np.ndarray
    """(H, W, 3) uint8, RGB."""
    kind: Kind
    score: float | None = None


class Strip(NamedTuple):
    """A query and what was found for it, the most similar first."""

    query_pixels: np.ndarray
    """(H, W, 3) uint8, RGB."""
    box: Box | None
    """x1, y1, x2, y2 in these pixels."""
    results: Sequence[Result]


def draw_strip(path: Path, query_pixels: np.ndarray, box: Box | None, results: Sequence[Result]) -> None:
    """Draws a query with its box and its first ten results in a row.

    Below each result stand its rank, a mark and its score. Positives (+) have a thin green frame, junk a
    dotted grey one, and what is wrong (×) a thick red one.

    Args:
        path: the file, .png, .pdf or .jpg.
        query_pixels: (H, W, 3) uint8, RGB.
        box: x1, y1, x2, y2 in pixels of the query, or None for all of it.
        results: the most similar first.

    Raises:
        UserError: the file is of another type or cannot be written.
    """
    draw_strips(path, [Strip(query_pixels, box, results)])


def draw_strips(path: Path, strips: Sequence[Strip]) -> None:
    """Draws some queries as `draw_strip` does, one below the other.

    Raises:
        UserError: the file is of another type or cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Rectangle

    columns = 1 + min(max(len(strip.results) for strip in strips), RESULTS_SHOWN)
    size = (columns * TILE[0], len(strips) * (TILE[1] + 0.15))
    figure = Figure(size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02))
    for row, strip in zip(figure.subplots(len(strips), columns, squeeze=False), strips, strict=True):
        for axes in row:
            axes.set_axis_off()
        _draw_tile(row[0], strip.query_pixels, "query", "query")
        if strip.box is not None:
            left, top, right, bottom = strip.box
            # on a light rim, to be seen on dark ground too
            for color, width in (("white", 1.6), (FRAMES["query"]["edgecolor"], 0.8)):
                box = Rectangle(
                    (left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=width
                )
                row[0].add_patch(box)
        for rank, (axes, (pixels, kind, score)) in enumerate(zip(row[1:], strip.results, strict=False), 1):
            score_text = "" if score is None else f" {score:.3f}"
            _draw_tile(axes, pixels, kind, f"{rank} {MARKS[kind]}{score_text}")
    save(figure, path)


def _draw_tile(axes: "Axes", pixels: np.ndarray, kind: str, text: str) -> None:
    from matplotlib.patches import Rectangle

    axes.set_anchor("S")
    axes.imshow(pixels)
    frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, clip_on=False)
    frame.set(**FRAMES[kind])
    axes.add_patch(frame)
    axes.annotate(
        text,
        (0.5, 0),
        xycoords="axes fraction",
        xytext=(0, -2.5),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=5.5,
    )


def precision_recall(indices: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """The curve whose area by trapezoids is `utils.scoring.compute_ap.average_precision`.

    It starts at recall 0, precision 1. Each found positive adds two points: the precision just before it at
    the old recall, and with it at the new one. Between them lie the places where recall does not rise.

    Args:
        indices: (K,) indices of the positives in the ranking without junk, from 0, rising.
        positives: how many there are to find.

    Returns:
        Recall and precision, both (1 + 2 · found,) float64, 0..1.

    Raises:
        ValueError: there is nothing to find, where recall is 0 / 0.
    """
    if positives == 0:
        raise ValueError("without positives there is no recall")
    recall = np.arange(len(indices) + 1) / positives
    precision = np.concatenate([[1.0], np.stack(precision_around(indices), axis=1).ravel()])
    return recall.repeat(2)[:-1], precision


def draw_precision_recall(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draws precision over recall, each curve in a colour and a line style of its own.

    Args:
        path: the file, .png, .pdf or .jpg.
        curves: recall and precision by what the legend calls them, from `precision_recall`.

    Raises:
        UserError: the file is of another type or cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure((3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, (recall, precision)), (color, style) in zip(curves.items(), cycle(CURVES), strict=False):
        axes.plot(recall, precision, color=color, linestyle=style, linewidth=1.5, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        legend = figure.legend(
            loc="outside upper center",
            ncols=2,
            fontsize=8,
            handlelength=3.5,
            frameon=False,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name with dollars is no formula
    save(figure, path)


def draw_attention(path: Path, pixels: np.ndarray, heat: np.ndarray) -> None:
    """Draws an image beside its heat map and what the colours stand for.

    Args:
        path: the file, .png, .pdf or .jpg.
        pixels: (H, W, 3) uint8, RGB.
        heat: (h, w) finite weights, from `utils.figures.heat_map.image_attention`.

    Raises:
        UserError: the file is of another type or cannot be written.
        ValueError: a weight is not finite.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.figure import Figure

    height, width = pixels.shape[:2]
    drawn = heat_map(heat, pixels)
    figure = Figure((6.5, min(max(2.9 * height / width, 1.2), 6)), layout="constrained")
    image, map_axes = figure.subplots(1, 2)
    for axes, shown in ((image, pixels), (map_axes, drawn)):
        axes.imshow(shown)
        axes.set_axis_off()
    # the colours as they are over an image of middle grey
    colors = ListedColormap(blended_colors(np.full(256, 0.5), np.linspace(0, 1, 256)))
    scale = ScalarMappable(Normalize(*heat_range(heat)), colors)
    bar = figure.colorbar(scale, ax=map_axes, aspect=30)
    bar.set_label("mean weight of the regions", size=8)
    bar.ax.tick_params(labelsize=8)
    save(figure, path)


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure, of the type that the file's suffix says, without a date.

    Raises:
        UserError: it is none of the types, or the file cannot be written.
    """
    import matplotlib

    kind = path.suffix.lower().removeprefix(".")
    if kind not in UNDATED:
        raise UserError(f"cannot draw {path}: its name must end in one of .{', .'.join(UNDATED)}")
    # as text that can be searched; many publishers refuse matplotlib's default
    with replace_file(path) as file, matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(file, format=kind, dpi=RESOLUTION, metadata=UNDATED[kind])
