"""Random styles of drawn buildings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")

Color = tuple[int, int, int]

WALLS: tuple[Color, ...] = (
    (205, 186, 150),
    (222, 208, 180),
    (176, 160, 138),
    (160, 96, 74),
    (186, 120, 92),
    (150, 150, 152),
    (228, 224, 214),
    (206, 164, 110),
    (196, 150, 140),
    (170, 176, 160),
)
ROOFS: tuple[Color, ...] = ((92, 98, 110), (128, 72, 54), (96, 140, 124), (70, 72, 78), (150, 96, 70))
GLASS: tuple[Color, ...] = ((52, 60, 72), (74, 84, 96), (40, 42, 48), (96, 110, 124))

WINDOWS = ("plain", "arched", "pointed", "round", "shuttered", "gabled")
ROOF_KINDS = ("flat", "battlements", "gable", "mansard", "hipped")
TOWER_TOPS = ("spire", "dome", "onion", "battlements", "pyramid")
TEXTURES = ("plaster", "bricks", "courses", "blocks")


@dataclass(frozen=True)
class Style:
    """Style of a building; lengths are shares of the width or height of the drawing."""

    wall: Color
    trim: Color
    roof: Color
    glass: Color
    texture: str
    window: str
    upper_window: str
    ground_floor: str
    roof_kind: str
    floors: int
    bays: int
    body_width: float
    body_height: float
    pilasters: bool
    tower_sides: str
    tower_top: str
    tower_height: float
    crown: str


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a random style."""

    def pick(choices: Sequence[Choice]) -> Choice:
        return choices[int(rng.integers(len(choices)))]

    def tint(color: Color, spread: float) -> Color:
        red, green, blue = (int(np.clip(level + rng.normal(0, spread), 0, 255)) for level in color)
        return red, green, blue

    wall = tint(pick(WALLS), 10)
    lighter = float(rng.uniform(-0.35, 0.5))
    red, green, blue = (int(np.clip(level * (1 + lighter), 20, 250)) for level in wall)
    towers = pick(("none", "none", "pair", "pair", "left", "right"))
    return Style(
        wall=wall,
        trim=(red, green, blue),
        roof=tint(pick(ROOFS), 10),
        glass=tint(pick(GLASS), 6),
        texture=pick(TEXTURES),
        window=pick(WINDOWS),
        upper_window=pick(WINDOWS),
        ground_floor=pick(("arcade", "door", "portal", "windows")),
        roof_kind=pick(ROOF_KINDS),
        floors=int(rng.integers(2, 6)),
        bays=int(rng.integers(3, 10)),
        body_width=float(rng.uniform(0.62, 0.96)),
        body_height=float(rng.uniform(0.36, 0.58)),
        pilasters=bool(rng.random() < 0.5),
        tower_sides=towers,
        tower_top=pick(TOWER_TOPS),
        tower_height=float(rng.uniform(0.1, 0.3)),
        crown=pick(("none", "dome", "clock tower", "pediment", "rose")),
    )
