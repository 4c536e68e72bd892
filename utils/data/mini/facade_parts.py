"""Parts of building fronts: walls, trim, openings, windows, tops of towers, clocks, rose windows."""

import numpy as np
from PIL import Image, ImageDraw

from utils.data.mini.styles import Color, Style
from utils.images.loading import Box


class FacadeCanvas:
    """An image with parts of one building, drawn in the style of the building.

    All lengths are in pixels. A part is given by its edges, or by its upper left corner and its size.
    """

    def __init__(self, style: Style, size: tuple[int, int]) -> None:
        self.style = style
        self.image = Image.new("RGBA", size, (*style.wall, 0))
        self.draw = ImageDraw.Draw(self.image)

    def wall(self, left: float, top: float, right: float, bottom: float) -> None:
        """Draw a wall with the joints of its texture."""
        style = self.style
        self.draw.rectangle((left, top, right, bottom), fill=style.wall)
        joint = tuple(int(level * 0.86) for level in style.wall)
        course = {"plaster": 0, "bricks": 12, "courses": 34, "blocks": 44}[style.texture]
        if not course:
            return
        length = {"bricks": 34, "courses": 0, "blocks": 90}[style.texture]
        for row, y in enumerate(np.arange(top, bottom, course)):
            self.draw.line((left, y, right, y), joint, 3)
            if length:
                for x in np.arange(left + (row % 2) * length / 2, right, length):
                    self.draw.line((x, y, x, min(y + course, bottom)), joint, 3)

    def _fill(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Draw a rectangle unless it is empty, as parts of very low openings are."""
        if right > left and bottom > top:
            self.draw.rectangle((left, top, right, bottom), fill=color)

    def bar(self, left: float, top: float, right: float, bottom: float) -> None:
        """Draw a strip of trim with a shadow below and to the right."""
        shadow = tuple(int(level * 0.6) for level in self.style.trim)
        self.draw.rectangle((left + 3, top + 3, right + 3, bottom + 4), fill=shadow)
        self.draw.rectangle((left, top, right, bottom), fill=self.style.trim)

    def arch(self, left: float, top: float, width: float, height: float, curve: float) -> None:
        """Draw an opening down to the floor; its top is a half ellipse of height `curve` times its width."""
        for margin, color in ((0.0, self.style.trim), (-0.08 * width, (46, 40, 38))):
            x0, y0, x1, _ = add_margin(left, top, width, height, margin)
            rise = curve * (x1 - x0)
            self._fill(x0, y0 + rise, x1, top + height, color)
            if rise:
                self.draw.pieslice((x0, y0, x1, y0 + 2 * rise), 180, 360, fill=color)

    def window(self, left: float, top: float, width: float, height: float, kind: str) -> None:
        """Draw a window with its frame, and with bars and a sill unless it is round."""
        style, draw = self.style, self.draw
        for margin, color in ((0.1 * width, style.trim), (0.0, style.glass)):
            x0, y0, x1, y1 = add_margin(left, top, width, height, margin)
            match kind:
                case "round":
                    radius = min(x1 - x0, y1 - y0) / 2
                    x, y = (x0 + x1) / 2, (y0 + y1) / 2
                    draw_circle(draw, x, y, radius, color)
                case "arched":
                    draw.pieslice((x0, y0, x1, y0 + (x1 - x0)), 180, 360, fill=color)
                    self._fill(x0, y0 + (x1 - x0) / 2, x1, y1, color)
                case "pointed":
                    shoulder = y0 + 0.35 * (y1 - y0)
                    draw.polygon(
                        [(x0, y1), (x0, shoulder), ((x0 + x1) / 2, y0), (x1, shoulder), (x1, y1)], fill=color
                    )
                case _:
                    draw.rectangle((x0, y0, x1, y1), fill=color)
        if kind != "round":
            bar = max(2, width * 0.06)
            x, y = left + width / 2, top + 0.55 * height
            draw.rectangle((x - bar / 2, top + 0.1 * height, x + bar / 2, top + height), fill=style.trim)
            draw.rectangle((left, y - bar / 2, left + width, y + bar / 2), fill=style.trim)
            self.bar(left - 0.2 * width, top + height, left + 1.2 * width, top + height + 0.06 * height)
        if kind == "shuttered":
            for x in (left - 0.42 * width, left + 1.04 * width):
                draw.rectangle((x, top, x + 0.38 * width, top + height), fill=style.roof)
        if kind == "gabled":
            peak = [
                (left - 0.25 * width, top),
                (left + width / 2, top - 0.4 * width),
                (left + 1.25 * width, top),
            ]
            draw.polygon(peak, fill=style.trim)

    def top(self, kind: str, left: float, right: float, bottom: float, height: float) -> None:
        """Draw the top of a tower or drum, from `left` to `right` above `bottom`."""
        draw, roof = self.draw, self.style.roof
        middle, width = (left + right) / 2, right - left
        if kind == "battlements":
            self.battlements(left - 8, right + 8, bottom)
            return
        if kind in ("spire", "pyramid"):
            rise = height if kind == "spire" else 0.5 * height
            draw.polygon([(left - 8, bottom), (middle, bottom - rise), (right + 8, bottom)], fill=roof)
        elif kind == "dome":
            rise = min(height, 0.55 * width)
            draw.pieslice((left, bottom - rise, right, bottom + rise), 180, 360, fill=roof)
            for share in (0.25, 0.5, 0.75):
                rib = abs(share - 0.5) * width
                box = (middle - rib, bottom - rise, middle + rib + 1, bottom + rise)
                draw.arc(box, 180, 360, fill=self.style.trim, width=4)
        elif kind == "onion":
            rise = min(height, 0.9 * width)
            draw.ellipse((left - 8, bottom - rise, right + 8, bottom + 0.15 * rise), fill=roof)
            draw.polygon(
                [
                    (middle - 0.2 * width, bottom - 0.9 * rise),
                    (middle, bottom - 1.5 * rise),
                    (middle + 0.2 * width, bottom - 0.9 * rise),
                ],
                fill=roof,
            )
        draw.line((middle, bottom - height, middle, bottom - height - 50), self.style.trim, 6)

    def battlements(self, left: float, right: float, bottom: float) -> None:
        """Draw a row of battlements on a strip of trim, from `left` to `right` above `bottom`."""
        self.bar(left, bottom - 22, right, bottom)
        count = max(3, int((right - left) / 56))
        step = (right - left) / (2 * count - 1)
        for i in range(count):
            x = left + 2 * i * step
            self.draw.rectangle((x, bottom - 60, x + step, bottom - 20), fill=self.style.wall)

    def clock(self, x: float, y: float, radius: float) -> None:
        """Draw a clock around (x, y)."""
        draw_circle(self.draw, x, y, radius, self.style.trim)
        inner = 0.82 * radius
        draw_circle(self.draw, x, y, inner, (240, 236, 220))
        self.draw.line((x, y, x, y - 0.7 * radius), (20, 20, 20), 6)
        self.draw.line((x, y, x + 0.5 * radius, y + 0.2 * radius), (20, 20, 20), 6)

    def rose(self, x: float, y: float, radius: float) -> None:
        """Draw a rose window around (x, y)."""
        draw_circle(self.draw, x, y, radius, self.style.trim)
        for angle in np.linspace(0, 2 * np.pi, 10, endpoint=False):
            cx, cy, r = x + 0.64 * radius * np.cos(angle), y + 0.64 * radius * np.sin(angle), 0.18 * radius
            draw_circle(self.draw, cx, cy, r, self.style.glass)
        r = 0.3 * radius
        draw_circle(self.draw, x, y, r, self.style.glass)


def add_margin(left: float, top: float, width: float, height: float, margin: float) -> Box:
    """Return the box x1, y1, x2, y2 of a rectangle with a margin on each side; a negative one shrinks it."""
    return left - margin, top - margin, left + width + margin, top + height + margin


def draw_circle(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: tuple[int, ...]) -> None:
    """Draw a filled circle around (x, y)."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
