"""Figures of a query and a result with the points or regions that a re-ranking matched."""

import colorsys
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from utils.figures.result_page import BOX_COLOR

SIDE = 480
"""Width of both images if one is drawn above the other, or height if they are side by side, in pixels."""

GAP = 6
"""Pixels between the images."""

MOST_LINES = 30
"""Maximum number of points that lines connect; all points have dots."""

SMOOTHING = 2
"""Factor by which figures are drawn larger and then reduced, which makes lines smooth."""


class _Pair(NamedTuple):
    """A query and a result in one image."""

    figure: Image.Image
    query_scale: float
    """Pixels of the figure per pixel of the query."""
    result_scale: float
    result_corner: tuple[int, int]
    """Left and top of the result in the figure, in pixels."""


def draw_points(
    query: np.ndarray, result: np.ndarray, query_points: np.ndarray, result_points: np.ndarray
) -> Image.Image:
    """Draw the matched points of a query and a result, some of them connected by lines.

    Points at the left of the query are red, and in the colours of the rainbow further to the right.

    Args:
        query: (H, W, 3) uint8, RGB.
        result: (H', W', 3) uint8, RGB.
        query_points: (n, 2), x and y in pixels of the query.
        result_points: (n, 2), x and y of the same points in pixels of the result.
    """
    pair = _pair(query, result)
    draw = ImageDraw.Draw(pair.figure)
    starts = query_points * pair.query_scale
    ends = result_points * pair.result_scale + np.array(pair.result_corner)
    lines = {int(index) for index in np.linspace(0, len(starts) - 1, min(MOST_LINES, len(starts)))}
    for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        hue = 0.8 * query_points[index, 0] / query.shape[1]
        red, green, blue = colorsys.hsv_to_rgb(hue, 1, 1)
        color = (round(255 * red), round(255 * green), round(255 * blue))
        if index in lines:
            draw.line((*start, *end), fill=color, width=SMOOTHING)
        for x, y in (start, end):
            radius = 2 * SMOOTHING
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline="black")
    return _reduced(pair.figure)


def draw_boxes(
    query: np.ndarray, result: np.ndarray, query_box: np.ndarray, result_box: np.ndarray
) -> Image.Image:
    """Draw a box in a query and a box in a result.

    Args:
        query: (H, W, 3) uint8, RGB.
        result: (H', W', 3) uint8, RGB.
        query_box: (4,), left, top, right and bottom in pixels of the query.
        result_box: (4,), the same in pixels of the result.
    """
    pair = _pair(query, result)
    draw = ImageDraw.Draw(pair.figure)
    corner = np.array(pair.result_corner * 2)
    for box in (query_box * pair.query_scale, result_box * pair.result_scale + corner):
        left, top, right, bottom = np.rint(box).tolist()
        # with a black outline, to be visible on bright images
        for color, width in (("black", 4 * SMOOTHING), (BOX_COLOR, 2 * SMOOTHING)):
            draw.rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)
    return _reduced(pair.figure)


def _pair(query: np.ndarray, result: np.ndarray) -> _Pair:
    """Return both images in one: side by side if they are rather upright, else one above the other."""
    side, gap = SIDE * SMOOTHING, GAP * SMOOTHING
    sizes = [np.array([image.shape[1], image.shape[0]]) for image in (query, result)]
    is_upright = sum(width / height for width, height in sizes) < 2
    query_scale, result_scale = (side / float(size[1 if is_upright else 0]) for size in sizes)
    parts = [
        Image.fromarray(image).resize(np.maximum(np.rint(size * scale), 1).astype(int).tolist())
        for image, size, scale in zip((query, result), sizes, (query_scale, result_scale), strict=True)
    ]
    first, second = parts
    corner = (first.width + gap, 0) if is_upright else (0, first.height + gap)
    figure = Image.new("RGB", (corner[0] + second.width, corner[1] + second.height), "white")
    figure.paste(first, (0, 0))
    figure.paste(second, corner)
    return _Pair(figure, query_scale, result_scale, corner)


def _reduced(figure: Image.Image) -> Image.Image:
    return figure.reduce(SMOOTHING)
