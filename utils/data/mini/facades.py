"""Drawings of building fronts: walls with windows and cornices, roofs, towers, domes, arches, textures."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from utils.data.mini.noise import smooth_noise
from utils.data.mini.styles import Color, Style, draw_style
from utils.images.loading import Box

WIDTH, HEIGHT = 560, 760
"""Size of a drawing in pixels; the building stands on the lower edge."""

OVERSAMPLING = 2
"""Drawings are made larger by this factor, then reduced, which smooths their edges."""


@dataclass(frozen=True)
class Facade:
    """A drawn building and its style."""

    image: Image.Image
    """RGBA image, transparent around the building."""
    style: Style


def draw_facade(rng: np.random.Generator) -> Facade:
    """Draw a building of a random style."""
    style = draw_style(rng)
    canvas = _Canvas(style)
    canvas.roof()
    canvas.crown()
    canvas.body()
    canvas.towers()
    image = canvas.image.reduce(OVERSAMPLING)
    return Facade(_weathered(image, style, rng), style)


def _weathered(image: Image.Image, style: Style, rng: np.random.Generator) -> Image.Image:
    """Add stains and grain to a building, stronger on rough walls."""
    pixels = np.asarray(image).astype(np.float32)
    height, width = pixels.shape[:2]
    strength = 0.06 if style.texture == "plaster" else 0.1
    stains = smooth_noise(rng, height, width, (6, 20, 60)) * strength
    grain = rng.normal(0, 0.03, (height, width)).astype(np.float32)
    pixels[..., :3] *= (1 + stains + grain)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA")


class _Canvas:
    """A drawing of one building, made part by part from back to front."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.width, self.height = WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING
        self.image = Image.new("RGBA", (self.width, self.height), (*style.wall, 0))
        self.draw = ImageDraw.Draw(self.image)
        half = style.body_width * self.width / 2
        self.left, self.right = self.width / 2 - half, self.width / 2 + half
        self.top = self.height * (1 - style.body_height)
        self.floor = style.body_height * self.height / style.floors

    def body(self) -> None:
        """Draw the wall with its texture, its floors of windows and the cornices between them."""
        style = self.style
        self._wall(self.left, self.top, self.right, self.height)
        bay = (self.right - self.left) / style.bays
        for floor in range(style.floors):
            top = self.top + floor * self.floor
            ground = floor == style.floors - 1
            kind = style.upper_window if floor == 0 else style.window
            for i in range(style.bays):
                left = self.left + i * bay
                if ground and self._ground_opening(i, left, top, bay):
                    continue
                self._window(left + 0.24 * bay, top + 0.22 * self.floor, 0.52 * bay, 0.62 * self.floor, kind)
            self._bar(self.left - 6, top, self.right + 6, top + 0.07 * self.floor)
        if style.pilasters:
            for i in range(style.bays + 1):
                x = self.left + i * bay
                self._bar(x - 0.06 * bay, self.top, x + 0.06 * bay, self.height)

    def roof(self) -> None:
        """Draw the roof on the wall."""
        left, right, top = self.left - 10, self.right + 10, self.top
        rise = 0.13 * self.height
        roof = self.style.roof
        peak = (self.width / 2, top - rise)
        match self.style.roof_kind:
            case "battlements":
                self._battlements(self.left, self.right, top)
            case "gable":
                self.draw.polygon([(left, top), peak, (right, top)], fill=self.style.wall)
                self.draw.line([(left, top), peak, (right, top)], self.style.trim, 14)
            case "mansard":
                inset = 0.09 * (right - left)
                corners = [(left, top), (left + inset, top - rise), (right - inset, top - rise), (right, top)]
                self.draw.polygon(corners, fill=roof)
                for i in range(self.style.bays):
                    x = left + inset + (i + 0.5) * (right - left - 2 * inset) / self.style.bays
                    self._window(x - 16, top - 0.75 * rise, 32, 0.5 * rise, "gabled")
            case "hipped":
                inset = 0.22 * (right - left)
                corners = [(left, top), (left + inset, top - rise), (right - inset, top - rise), (right, top)]
                self.draw.polygon(corners, fill=roof)

    def crown(self) -> None:
        """Draw the part above the middle of the wall."""
        middle, width = self.width / 2, 0.26 * (self.right - self.left)
        top = self.top - 0.02 * self.height
        match self.style.crown:
            case "dome":
                drum = 0.09 * self.height
                self._wall(middle - width, top - drum - 40, middle + width, top + 60)
                for i in range(5):
                    x = middle - width + (i + 0.3) * 2 * width / 5
                    self._window(x, top - drum, 0.16 * width, 0.7 * drum, "arched")
                self._top("dome", middle - width, middle + width, top - drum - 40, 0.16 * self.height)
            case "clock tower":
                tower_top = self.top - 0.2 * self.height
                self._wall(middle - 0.5 * width, tower_top, middle + 0.5 * width, self.top + 60)
                self._clock(middle, tower_top + 0.55 * width, 0.36 * width)
                self._top(self.style.tower_top, middle - 0.5 * width, middle + 0.5 * width, tower_top, 150)
            case "pediment":
                left, right = middle - 1.3 * width, middle + 1.3 * width
                corners = [(left, self.top), (middle, top - 170), (right, self.top)]
                self.draw.polygon(corners, fill=self.style.wall)
                self.draw.line([*corners, corners[0]], self.style.trim, 16)
                self._clock(middle, self.top - 60, 34)
            case "rose":
                self._wall(middle - width, self.top - 0.17 * self.height, middle + width, self.top + 60)
                self._rose(middle, self.top - 0.08 * self.height, 0.065 * self.height)

    def towers(self) -> None:
        """Draw the towers at the ends of the wall."""
        style = self.style
        width = 0.16 * self.width
        sides = {"none": (), "pair": (-1, 1), "left": (-1,), "right": (1,)}[style.tower_sides]
        for side in sides:
            middle = self.width / 2 + side * ((self.right - self.left) / 2 - 0.3 * width)
            left, right = middle - width / 2, middle + width / 2
            top = self.top - style.tower_height * self.height
            self._wall(left, top, right, self.height)
            storeys = 2 + int((self.height - top) // (0.22 * self.height))
            step = (self.height - top) / storeys
            for storey in range(storeys):
                y = top + storey * step
                self._window(
                    middle - 0.2 * width, y + 0.25 * step, 0.4 * width, 0.5 * step, style.upper_window
                )
                self._bar(left - 5, y, right + 5, y + 14)
            self._top(style.tower_top, left, right, top, 0.17 * self.height)

    def _wall(self, left: float, top: float, right: float, bottom: float) -> None:
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

    def _bar(self, left: float, top: float, right: float, bottom: float) -> None:
        """Draw a strip of trim with a shadow below and to the right."""
        shadow = tuple(int(level * 0.6) for level in self.style.trim)
        self.draw.rectangle((left + 3, top + 3, right + 3, bottom + 4), fill=shadow)
        self.draw.rectangle((left, top, right, bottom), fill=self.style.trim)

    def _ground_opening(self, bay: int, left: float, top: float, width: float) -> bool:
        """Draw the opening of a bay of the ground floor; return False if the bay has a window instead."""
        middle = bay == self.style.bays // 2
        match self.style.ground_floor:
            case "arcade":
                self._arch(left + 0.12 * width, top + 0.2 * self.floor, 0.76 * width, 0.8 * self.floor, 0.5)
                return True
            case "door" if middle:
                self._arch(left + 0.2 * width, top + 0.25 * self.floor, 0.6 * width, 0.75 * self.floor, 0.0)
                return True
            case "portal" if middle:
                self._arch(left - 0.1 * width, top + 0.12 * self.floor, 1.2 * width, 0.88 * self.floor, 0.5)
                self._arch(left + 0.15 * width, top + 0.3 * self.floor, 0.7 * width, 0.7 * self.floor, 0.5)
                return True
        return False

    def _arch(self, left: float, top: float, width: float, height: float, curve: float) -> None:
        """Draw an opening down to the floor; its top is a half ellipse of height `curve` times its width."""
        for margin, color in ((0.0, self.style.trim), (-0.08 * width, (46, 40, 38))):
            x0, y0, x1, _ = add_margin(left, top, width, height, margin)
            rise = curve * (x1 - x0)
            self._fill(x0, y0 + rise, x1, top + height, color)
            if rise:
                self.draw.pieslice((x0, y0, x1, y0 + 2 * rise), 180, 360, fill=color)

    def _window(self, left: float, top: float, width: float, height: float, kind: str) -> None:
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
            self._bar(left - 0.2 * width, top + height, left + 1.2 * width, top + height + 0.06 * height)
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

    def _top(self, kind: str, left: float, right: float, bottom: float, height: float) -> None:
        """Draw the top of a tower or drum, from `left` to `right` above `bottom`."""
        draw, roof = self.draw, self.style.roof
        middle, width = (left + right) / 2, right - left
        if kind == "battlements":
            self._battlements(left - 8, right + 8, bottom)
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

    def _battlements(self, left: float, right: float, bottom: float) -> None:
        self._bar(left, bottom - 22, right, bottom)
        count = max(3, int((right - left) / 56))
        step = (right - left) / (2 * count - 1)
        for i in range(count):
            x = left + 2 * i * step
            self.draw.rectangle((x, bottom - 60, x + step, bottom - 20), fill=self.style.wall)

    def _clock(self, x: float, y: float, radius: float) -> None:
        draw_circle(self.draw, x, y, radius, self.style.trim)
        inner = 0.82 * radius
        draw_circle(self.draw, x, y, inner, (240, 236, 220))
        self.draw.line((x, y, x, y - 0.7 * radius), (20, 20, 20), 6)
        self.draw.line((x, y, x + 0.5 * radius, y + 0.2 * radius), (20, 20, 20), 6)

    def _rose(self, x: float, y: float, radius: float) -> None:
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
