"""Photographs of a drawn building, with a random camera, surroundings, obstacles, light and blur."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from utils.data.mini.camera import Camera, faces_camera, warp
from utils.data.mini.facade_parts import draw_circle
from utils.data.mini.facades import HEIGHT, WIDTH, Facade
from utils.data.mini.noise import smooth_noise
from utils.images.loading import Box

Framing = Literal["full", "part", "glimpse"]
"""Framing of a building: all of it, a part of it, or only its edge beside another subject."""

IMAGE_SIZES = ((640, 480), (480, 640), (640, 427), (427, 640), (600, 450), (520, 520), (640, 360))
SKIES = (
    ((96, 146, 208), (196, 216, 236)),
    ((150, 160, 172), (206, 208, 210)),
    ((70, 110, 180), (232, 210, 180)),
    ((222, 160, 120), (244, 214, 170)),
    ((30, 38, 66), (84, 84, 110)),
    ((188, 200, 214), (226, 228, 230)),
)
GROUNDS = ((128, 122, 114), (98, 96, 94), (92, 116, 70), (150, 138, 118), (76, 76, 82))

SAMPLES = 64
"""Rows and columns of samples of the building's front that measure its visible share."""


@dataclass(frozen=True)
class Scene:
    """A photograph of a building."""

    image: Image.Image
    visible: float
    """Visible share of the front of the building, from 0 to 1."""
    box: Box
    """Box around the visible part, in pixels."""


def draw_scene(rng: np.random.Generator, facade: Facade | None, framing: Framing) -> Scene:
    """Draw a photograph of a building from a random viewpoint, or a scene without a building.

    Args:
        rng: the random generator.
        facade: the building; None for a scene without a building.
        framing: the intended framing; the visible share is measured afterwards.
    """
    size = IMAGE_SIZES[int(rng.integers(len(IMAGE_SIZES)))]
    horizon = float(rng.uniform(0.72, 0.95)) if framing != "part" else float(rng.uniform(0.75, 1.3))
    image = _surroundings(rng, size, horizon * size[1])
    visible, box = 0.0, (0.0, 0.0, 0.0, 0.0)
    camera = _draw_camera(rng, size, horizon * size[1], framing)
    if facade is not None:
        _paste_building(image, facade, camera)
    obstacles = _obstacles(rng, size, horizon * size[1], crowded=framing == "glimpse" or facade is None)
    image.alpha_composite(obstacles)
    if facade is not None:
        visible, box = _measure_visibility(facade, camera, np.asarray(obstacles)[..., 3] > 127)
    return Scene(_expose(rng, image.convert("RGB")), visible, box)


def _draw_camera(rng: np.random.Generator, size: tuple[int, int], ground: float, framing: Framing) -> Camera:
    width, height = size
    yaw = float(rng.uniform(-0.85, 0.85))
    match framing:
        case "full":
            scale = rng.uniform(0.65, 1.1) * height
            foot = (width * rng.uniform(0.35, 0.65), min(ground + 0.03 * height, 1.02 * height))
        case "part":
            scale = rng.uniform(1.1, 1.9) * height
            foot = (width * rng.uniform(0.2, 0.8), height + rng.uniform(0.0, 0.75) * (scale - height))
        case "glimpse":
            scale = rng.uniform(0.6, 1.1) * height
            beyond = rng.uniform(0.4, 0.8) * 0.5 * scale * WIDTH / HEIGHT
            foot = (rng.choice([-beyond, width + beyond]), ground + 0.02 * height)
    return Camera(
        size,
        yaw=yaw,
        pitch=float(rng.uniform(-0.15, 0.25)),
        roll=float(rng.normal(0, 0.05)),
        scale=float(scale),
        foot=(float(foot[0]), float(foot[1])),
    )


def _paste_building(image: Image.Image, facade: Facade, camera: Camera) -> None:
    """Paste the front and the side wall that faces the camera."""
    surface = facade.image
    half = 0.5 * surface.width / surface.height
    front = np.array([(-half, 1, 0), (half, 1, 0), (half, 0, 0), (-half, 0, 0)], float)
    style = facade.style
    edge, top, depth = half * style.body_width, style.body_height, 1.1 * half
    left_half = (int(surface.width * (0.5 - style.body_width / 2)), int(surface.height * (1 - top)))
    wall = surface.crop((*left_half, surface.width // 2, surface.height))
    wall = Image.blend(wall, Image.new("RGBA", wall.size, (0, 0, 0, 255)), 0.35)
    for x, left, right in ((-edge, depth, 0.0), (edge, 0.0, depth)):
        corners = [(x, top, left), (x, top, right), (x, 0, right), (x, 0, left)]
        quad = camera.project(np.array(corners, float))
        if faces_camera(quad):
            image.alpha_composite(warp(wall, quad, camera.size))
    image.alpha_composite(warp(surface, camera.project(front), camera.size))


def _measure_visibility(facade: Facade, camera: Camera, covered: np.ndarray) -> tuple[float, Box]:
    """Return the share of the front that is inside the image and not covered, and the box around it."""
    alpha = np.asarray(facade.image.resize((SAMPLES, SAMPLES)))[..., 3] > 127
    row, column = np.nonzero(alpha)
    half = 0.5 * facade.image.width / facade.image.height
    x = ((column + 0.5) / SAMPLES * 2 - 1) * half
    y = 1 - (row + 0.5) / SAMPLES
    pixels = camera.project(np.stack([x, y, np.zeros_like(x)], axis=1))
    width, height = camera.size
    inside = (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    u, v = pixels[inside].astype(int).T
    seen = pixels[inside][~covered[v, u]]
    if len(seen) == 0:
        return 0.0, (0.0, 0.0, 0.0, 0.0)
    (x1, y1), (x2, y2) = seen.min(axis=0), seen.max(axis=0)
    return len(seen) / len(pixels), (float(x1), float(y1), float(x2), float(y2))


def _surroundings(rng: np.random.Generator, size: tuple[int, int], ground: float) -> Image.Image:
    """Draw a sky with clouds, the ground, houses and trees, as RGBA."""
    width, height = size
    zenith, low = (np.array(color, float) for color in SKIES[int(rng.integers(len(SKIES)))])
    share = np.clip(np.arange(height) / max(ground, 1), 0, 1)[:, None, None]
    pixels = zenith + (low - zenith) * share + np.zeros((height, width, 3))
    clouds = smooth_noise(rng, height, width, (3, 8, 22))[..., None]
    pixels += np.clip(clouds, 0, 2) * rng.uniform(0, 40)
    floor = np.array(GROUNDS[int(rng.integers(len(GROUNDS)))], float)
    texture = smooth_noise(rng, height, width, (4, 160))[..., None]
    below = np.arange(height)[:, None, None] > ground
    pixels = np.where(below, floor * (1 + 0.07 * texture), pixels)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGBA")
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5))):
        _house(rng, draw, width, ground, height)
    for _ in range(int(rng.integers(0, 4))):
        _tree(rng, draw, rng.uniform(0, width), ground + 5, height * rng.uniform(0.12, 0.35))
    return image


def _house(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, width: int, ground: float, height: int
) -> None:
    """Draw a plain house in the background, with a grid of windows."""
    wall = tuple(int(level) for level in rng.uniform(90, 210) + rng.normal(0, 16, 3))
    left, span = rng.uniform(-0.1, 0.9) * width, rng.uniform(0.12, 0.3) * width
    rise = rng.uniform(0.1, 0.4) * height
    draw.rectangle((left, ground - rise, left + span, ground), fill=wall)
    glass = tuple(int(level * 0.5) for level in wall)
    columns, rows = (int(count) for count in rng.integers(3, 8, 2))
    for x in np.linspace(left, left + span, columns, endpoint=False):
        for y in np.linspace(ground - rise, ground, rows, endpoint=False):
            w, h = span / columns, rise / rows
            draw.rectangle((x + 0.25 * w, y + 0.25 * h, x + 0.7 * w, y + 0.75 * h), fill=glass)


def _tree(rng: np.random.Generator, draw: ImageDraw.ImageDraw, x: float, foot: float, height: float) -> None:
    green = np.array([rng.uniform(40, 90), rng.uniform(80, 120), rng.uniform(30, 60)])
    draw.rectangle((x - 0.03 * height, foot - 0.5 * height, x + 0.03 * height, foot), fill=(78, 60, 44))
    for _ in range(40):
        radius = height * rng.uniform(0.05, 0.13)
        cx, cy = x + rng.normal(0, 0.14) * height, foot - height * rng.uniform(0.4, 0.95)
        leaf = tuple(int(level) for level in np.clip(green * rng.uniform(0.6, 1.3), 0, 255))
        draw_circle(draw, cx, cy, radius, leaf)


def _obstacles(
    rng: np.random.Generator, size: tuple[int, int], ground: float, *, crowded: bool
) -> Image.Image:
    """Draw trees, lamp posts, cars and people in front of the building, as RGBA, transparent elsewhere."""
    width, height = size
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for _ in range(int(rng.integers(3, 7) if crowded else rng.integers(0, 4))):
        x = rng.uniform(0, width)
        foot = min(ground + rng.uniform(0.02, 0.2) * height, height + 40)
        match int(rng.integers(4)):
            case 0:
                _tree(rng, draw, x, foot, height * rng.uniform(0.4, 1.0 if crowded else 0.7))
            case 1:
                draw.rectangle((x - 3, foot - 0.6 * height, x + 3, foot), fill=(40, 42, 46))
                draw.ellipse(
                    (x - 14, foot - 0.64 * height, x + 14, foot - 0.58 * height), fill=(236, 228, 190)
                )
            case 2:
                paint = tuple(int(level) for level in rng.uniform(20, 230, 3))
                w, h = 0.22 * width, 0.09 * height
                draw.rounded_rectangle((x - w / 2, foot - h, x + w / 2, foot), 12, fill=paint)
                draw.rounded_rectangle((x - w / 3, foot - 1.7 * h, x + w / 3, foot - 0.8 * h), 10, fill=paint)
                for wheel in (-0.3, 0.3):
                    cx = x + wheel * w
                    draw.ellipse(
                        (cx - 0.3 * h, foot - 0.25 * h, cx + 0.3 * h, foot + 0.3 * h), fill=(24, 24, 26)
                    )
            case 3:
                for _ in range(int(rng.integers(1, 6))):
                    px, h = x + rng.normal(0, 40), height * rng.uniform(0.14, 0.3)
                    coat = tuple(int(level) for level in rng.uniform(10, 220, 3))
                    draw.rectangle((px - 0.12 * h, foot - 0.8 * h, px + 0.12 * h, foot), fill=coat)
                    draw.ellipse(
                        (px - 0.09 * h, foot - h, px + 0.09 * h, foot - 0.8 * h), fill=(206, 164, 138)
                    )
    return layer


def _expose(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Apply random brightness, colour, haze, shading, blur and sensor noise."""
    pixels = np.asarray(image).astype(np.float32) / 255
    height, width = pixels.shape[:2]
    pixels = pixels ** float(np.exp(rng.normal(0, 0.22)))
    pixels *= np.exp(rng.normal(0, 0.18)) * np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    across = (
        np.cos(angle) * np.linspace(-1, 1, width)[None] + np.sin(angle) * np.linspace(-1, 1, height)[:, None]
    )
    pixels *= (1 + strength * across)[..., None].astype(np.float32)
    haze = np.float32(rng.uniform(0, 0.3) if rng.random() < 0.3 else 0)
    pixels = pixels * (1 - haze) + np.float32(0.75) * haze
    if rng.random() < 0.06:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    pixels += rng.normal(0, rng.uniform(0.0, 0.05), pixels.shape).astype(np.float32)
    image = Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))
    blur = rng.uniform(0, 1.8)
    return image.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.6 else image
