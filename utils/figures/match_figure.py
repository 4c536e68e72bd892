"""Figures of a query and a result with the points or regions that a re-ranking matched."""

import colorsys
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from utils.figures.result_page import BOX_COLOR

SIDE = 480
"""Longer side of both images, in pixels."""

GAP = 6
"""Pixels between the images."""

BACKGROUND = "#8c8c88"

MOST_LINES = 30
"""Maximum number of points that lines connect; all points have dots."""

SMOOTHING = 2
"""Factor by which figures are drawn larger and then reduced, which makes lines smooth."""


class _Pair(NamedTuple):
    """A query and a result in one image. The query is the first item of each pair of values."""

    figure: Image.Image
    scales: tuple[float, float]
    """Pixels of the figure per pixel of each image."""
    corners: tuple[np.ndarray, np.ndarray]
    """Left and top of each image in the figure, in pixels."""


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
    starts, ends = (
        points * scale + corner
        for points, scale, corner in zip(
            (query_points, result_points), pair.scales, pair.corners, strict=True
        )
    )
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
    for box, scale, corner in zip((query_box, result_box), pair.scales, pair.corners, strict=True):
        left, top, right, bottom = np.rint(box * scale + np.tile(corner, 2)).tolist()
        # with a black outline, to be visible on bright images
        for color, width in (("black", 4 * SMOOTHING), (BOX_COLOR, 2 * SMOOTHING)):
            draw.rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)
    return _reduced(pair.figure)


def _pair(query: np.ndarray, result: np.ndarray) -> _Pair:
    """Return both images in one: side by side if they are rather upright, else one above the other."""
    side, gap = SIDE * SMOOTHING, GAP * SMOOTHING
    sizes = [np.array([image.shape[1], image.shape[0]]) for image in (query, result)]
    is_upright = sum(width / height for width, height in sizes) < 2
    across = 1 if is_upright else 0  # the axis in which they are centred: y if they are side by side
    scales = (side / float(sizes[0].max()), side / float(sizes[1].max()))
    scaled = [
        np.maximum(np.rint(size * scale), 1).astype(int) for size, scale in zip(sizes, scales, strict=True)
    ]
    extent = np.maximum(*scaled)
    extent[1 - across] = scaled[0][1 - across] + gap + scaled[1][1 - across]
    corners = (np.zeros(2, int), np.zeros(2, int))
    for size, corner in zip(scaled, corners, strict=True):
        corner[across] = (extent[across] - size[across]) // 2
    corners[1][1 - across] = scaled[0][1 - across] + gap
    figure = Image.new("RGB", (int(extent[0]), int(extent[1])), BACKGROUND)
    for image, size, corner in zip((query, result), scaled, corners, strict=True):
        figure.paste(Image.fromarray(image).resize(size.tolist()), tuple(corner.tolist()))
    return _Pair(figure, scales, corners)


def _reduced(figure: Image.Image) -> Image.Image:
    return figure.reduce(SMOOTHING)
