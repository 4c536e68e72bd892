"""Figures for papers: rankings, precision over recall, and attention.

The same input gives the same bytes. Line styles and marks repeat the meaning of the colours, so that figures
can be printed in grey.
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

# Matplotlib is imported by the functions that draw, so that other runs save the time of the import.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["positive", "junk", "wrong"]

RESULTS_SHOWN = 10

RESOLUTION = 300
"""Pixels per inch."""

UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "jpg": None}
"""Metadata to leave out, by file type. Versions and dates would make files of equal figures differ."""

TILE = (0.68, 0.51)
"""Width and height of an image in a strip, in inches. Eleven images fit the width of a page."""

FRAMES = {
    "query": {"edgecolor": "#2158c4", "linewidth": 1},
    "positive": {"edgecolor": "#2e9940", "linewidth": 1},
    "junk": {"edgecolor": "#808080", "linewidth": 1.2, "linestyle": (0, (1, 1))},
    "wrong": {"edgecolor": "#c62f26", "linewidth": 2.4},
}
"""Style of the frame by kind of image."""

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
    """A retrieved image."""

    pixels: np.ndarray
    """(H, W, 3) uint8, RGB."""
    kind: Kind
    similarity: float | None = None


class Strip(NamedTuple):
    """A query and its results, in order of decreasing similarity."""

    query_pixels: np.ndarray
    """(H, W, 3) uint8, RGB."""
    box: Box | None
    """x1, y1, x2, y2 in pixels of the query; None for the complete image."""
    results: Sequence[Result]


def draw_strip(path: Path, query_pixels: np.ndarray, box: Box | None, results: Sequence[Result]) -> None:
    """Draw a query with its box and its first ten results in a row.

    Below each result are its rank, a mark and its similarity. Positives (+) have a thin green frame, junk
    images a dotted grey frame, and wrong images (×) a thick red frame.

    Args:
        path: the file, .png, .pdf or .jpg.
        query_pixels: (H, W, 3) uint8, RGB.
        box: x1, y1, x2, y2 in pixels of the query; None for the complete image.
        results: results in order of decreasing similarity.

    Raises:
        UserError: the file is of another type or cannot be written.
    """
    draw_strips(path, [Strip(query_pixels, box, results)])


def draw_strips(path: Path, strips: Sequence[Strip]) -> None:
    """Draw several queries one below the other, each like `draw_strip`.

    Args:
        path: the file, .png, .pdf or .jpg.
        strips: the queries with their results.

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
            # with a white outline, to be visible on dark images
            for color, width in (("white", 1.6), (FRAMES["query"]["edgecolor"], 0.8)):
                box = Rectangle(
                    (left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=width
                )
                row[0].add_patch(box)
        for rank, (axes, result) in enumerate(zip(row[1:], strip.results, strict=False), 1):
            similarity = "" if result.similarity is None else f" {result.similarity:.3f}"
            _draw_tile(axes, result.pixels, result.kind, f"{rank} {MARKS[result.kind]}{similarity}")
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
    """Return the curve of precision over recall, of which the area by trapezoids is the average precision.

    The average precision is `utils.scoring.compute_ap.average_precision`. The curve starts at recall 0 and
    precision 1. Each retrieved positive adds two points: the precision before it at the old recall, and the
    precision with it at the new recall.

    Args:
        indices: (K,) ascending indices of the positives in the ranking without junk, from 0.
        positives: number of all positives.

    Returns:
        Recall and precision, both (1 + 2 K,) float64, 0..1.

    Raises:
        ValueError: there are no positives, so that recall is undefined.
    """
    if positives == 0:
        raise ValueError("recall is undefined without positives")
    recall = np.arange(len(indices) + 1) / positives
    precision = np.concatenate([[1.0], np.stack(precision_around(indices), axis=1).ravel()])
    return recall.repeat(2)[:-1], precision


def draw_precision_recall(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw curves of precision over recall, each with a different colour and line style.

    Args:
        path: the file, .png, .pdf or .jpg.
        curves: recall and precision, as returned by `precision_recall`, by name in the legend.

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
            text.set_parse_math(False)  # dollars in a name do not mean a formula
    save(figure, path)


def draw_attention(path: Path, pixels: np.ndarray, heat: np.ndarray) -> None:
    """Draw an image beside its heat map, with a scale of the colours.

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
    # the colours of the map over an image of medium grey
    colors = ListedColormap(blended_colors(np.full(256, 0.5), np.linspace(0, 1, 256)))
    scale = ScalarMappable(Normalize(*heat_range(heat)), colors)
    bar = figure.colorbar(scale, ax=map_axes, aspect=30)
    bar.set_label("mean weight of the regions", size=8)
    bar.ax.tick_params(labelsize=8)
    save(figure, path)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the file's suffix, without a date.

    Raises:
        UserError: the format is not supported, or the file cannot be written.
    """
    import matplotlib

    kind = path.suffix.lower().removeprefix(".")
    if kind not in UNDATED:
        raise UserError(f"cannot draw {path}: its name must end in one of .{', .'.join(UNDATED)}")
    # Font type 42 keeps text searchable; many publishers refuse Matplotlib's default.
    with replace_file(path) as file, matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(file, format=kind, dpi=RESOLUTION, metadata=UNDATED[kind])
