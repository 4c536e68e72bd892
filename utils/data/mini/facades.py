"""Drawings of building fronts of random styles: roof, crown, wall with windows and cornices, towers."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from utils.data.mini.facade_parts import FacadeCanvas
from utils.data.mini.noise import smooth_noise
from utils.data.mini.styles import Style, draw_style

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
    building = _Building(style)
    building.roof()
    building.crown()
    building.body()
    building.towers()
    image = building.canvas.image.reduce(OVERSAMPLING)
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


class _Building:
    """The drawing of one building, made section by section from back to front."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.width, self.height = WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING
        self.canvas = FacadeCanvas(style, (self.width, self.height))
        half = style.body_width * self.width / 2
        self.left, self.right = self.width / 2 - half, self.width / 2 + half
        self.top = self.height * (1 - style.body_height)
        self.floor = style.body_height * self.height / style.floors

    def body(self) -> None:
        """Draw the wall with its texture, its floors of windows and the cornices between them."""
        style = self.style
        self.canvas.wall(self.left, self.top, self.right, self.height)
        bay = (self.right - self.left) / style.bays
        for floor in range(style.floors):
            top = self.top + floor * self.floor
            ground = floor == style.floors - 1
            kind = style.upper_window if floor == 0 else style.window
            for i in range(style.bays):
                left = self.left + i * bay
                if ground and self._ground_opening(i, left, top, bay):
                    continue
                self.canvas.window(
                    left + 0.24 * bay, top + 0.22 * self.floor, 0.52 * bay, 0.62 * self.floor, kind
                )
            self.canvas.bar(self.left - 6, top, self.right + 6, top + 0.07 * self.floor)
        if style.pilasters:
            for i in range(style.bays + 1):
                x = self.left + i * bay
                self.canvas.bar(x - 0.06 * bay, self.top, x + 0.06 * bay, self.height)

    def roof(self) -> None:
        """Draw the roof on the wall."""
        left, right, top = self.left - 10, self.right + 10, self.top
        rise = 0.13 * self.height
        roof = self.style.roof
        peak = (self.width / 2, top - rise)
        match self.style.roof_kind:
            case "battlements":
                self.canvas.battlements(self.left, self.right, top)
            case "gable":
                self.canvas.draw.polygon([(left, top), peak, (right, top)], fill=self.style.wall)
                self.canvas.draw.line([(left, top), peak, (right, top)], self.style.trim, 14)
            case "mansard":
                inset = 0.09 * (right - left)
                corners = [(left, top), (left + inset, top - rise), (right - inset, top - rise), (right, top)]
                self.canvas.draw.polygon(corners, fill=roof)
                for i in range(self.style.bays):
                    x = left + inset + (i + 0.5) * (right - left - 2 * inset) / self.style.bays
                    self.canvas.window(x - 16, top - 0.75 * rise, 32, 0.5 * rise, "gabled")
            case "hipped":
                inset = 0.22 * (right - left)
                corners = [(left, top), (left + inset, top - rise), (right - inset, top - rise), (right, top)]
                self.canvas.draw.polygon(corners, fill=roof)

    def crown(self) -> None:
        """Draw the part above the middle of the wall."""
        middle, width = self.width / 2, 0.26 * (self.right - self.left)
        top = self.top - 0.02 * self.height
        match self.style.crown:
            case "dome":
                drum = 0.09 * self.height
                self.canvas.wall(middle - width, top - drum - 40, middle + width, top + 60)
                for i in range(5):
                    x = middle - width + (i + 0.3) * 2 * width / 5
                    self.canvas.window(x, top - drum, 0.16 * width, 0.7 * drum, "arched")
                self.canvas.top("dome", middle - width, middle + width, top - drum - 40, 0.16 * self.height)
            case "clock tower":
                tower_top = self.top - 0.2 * self.height
                self.canvas.wall(middle - 0.5 * width, tower_top, middle + 0.5 * width, self.top + 60)
                self.canvas.clock(middle, tower_top + 0.55 * width, 0.36 * width)
                self.canvas.top(
                    self.style.tower_top, middle - 0.5 * width, middle + 0.5 * width, tower_top, 150
                )
            case "pediment":
                left, right = middle - 1.3 * width, middle + 1.3 * width
                corners = [(left, self.top), (middle, top - 170), (right, self.top)]
                self.canvas.draw.polygon(corners, fill=self.style.wall)
                self.canvas.draw.line([*corners, corners[0]], self.style.trim, 16)
                self.canvas.clock(middle, self.top - 60, 34)
            case "rose":
                self.canvas.wall(middle - width, self.top - 0.17 * self.height, middle + width, self.top + 60)
                self.canvas.rose(middle, self.top - 0.08 * self.height, 0.065 * self.height)

    def towers(self) -> None:
        """Draw the towers at the ends of the wall."""
        style = self.style
        width = 0.16 * self.width
        sides = {"none": (), "pair": (-1, 1), "left": (-1,), "right": (1,)}[style.tower_sides]
        for side in sides:
            middle = self.width / 2 + side * ((self.right - self.left) / 2 - 0.3 * width)
            left, right = middle - width / 2, middle + width / 2
            top = self.top - style.tower_height * self.height
            self.canvas.wall(left, top, right, self.height)
            storeys = 2 + int((self.height - top) // (0.22 * self.height))
            step = (self.height - top) / storeys
            for storey in range(storeys):
                y = top + storey * step
                self.canvas.window(
                    middle - 0.2 * width, y + 0.25 * step, 0.4 * width, 0.5 * step, style.upper_window
                )
                self.canvas.bar(left - 5, y, right + 5, y + 14)
            self.canvas.top(style.tower_top, left, right, top, 0.17 * self.height)

    def _ground_opening(self, bay: int, left: float, top: float, width: float) -> bool:
        """Draw the opening of a bay of the ground floor; return False if the bay has a window instead."""
        middle = bay == self.style.bays // 2
        match self.style.ground_floor:
            case "arcade":
                self.canvas.arch(
                    left + 0.12 * width, top + 0.2 * self.floor, 0.76 * width, 0.8 * self.floor, 0.5
                )
                return True
            case "door" if middle:
                self.canvas.arch(
                    left + 0.2 * width, top + 0.25 * self.floor, 0.6 * width, 0.75 * self.floor, 0.0
                )
                return True
            case "portal" if middle:
                self.canvas.arch(
                    left - 0.1 * width, top + 0.12 * self.floor, 1.2 * width, 0.88 * self.floor, 0.5
                )
                self.canvas.arch(
                    left + 0.15 * width, top + 0.3 * self.floor, 0.7 * width, 0.7 * self.floor, 0.5
                )
                return True
        return False
