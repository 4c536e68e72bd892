"""A camera: where points of a scene appear in its image, and flat images warped to there."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

FOCAL_LENGTH = 1.1
"""In units of the image's longer side."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at a building of height 1 standing on the origin.

    Angles in radians; `scale` is the building's height in the image, straight ahead, in pixels; `foot` the
    pixel at which the middle of its lower edge appears.
    """

    size: tuple[int, int]
    yaw: float
    pitch: float
    roll: float
    scale: float
    foot: tuple[float, float]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (n, 2) of points (n, 3): x to the right, y up, z away, as seen with yaw 0."""
        x, y, z = points.T
        x, z = _rotate(x, z, -self.yaw)
        y, z = _rotate(y, z, self.pitch)
        focal = FOCAL_LENGTH * max(self.size)
        depth = np.maximum(z + focal / self.scale, 0.05 * focal / self.scale)
        u, v = focal * x / depth, -focal * y / depth
        u, v = _rotate(u, v, self.roll)
        return np.stack([u + self.foot[0], v + self.foot[1]], axis=1)


def faces_camera(quad: np.ndarray) -> bool:
    """Whether the corners run clockwise on the screen, as those of a face turned to the camera do."""
    following = np.roll(quad, -1, axis=0)
    return float(np.sum(quad[:, 0] * following[:, 1] - following[:, 0] * quad[:, 1])) > 0


def warp(image: Image.Image, quad: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Maps an image's corners, clockwise from the upper left, to the four pixels of `quad`."""
    top, side = (float(np.linalg.norm(quad[corner] - quad[0])) for corner in (1, 3))
    longest = max(top, side, 1.0)
    factor = int(max(image.size) / longest)
    if factor > 1:  # the transform below reads four pixels for each: it would alias when it shrinks
        image = image.reduce(factor)
    width, height = image.size
    source = [(0, 0), (width, 0), (width, height), (0, height)]
    rows, values = [], []
    for (u, v), (x, y) in zip(quad, source, strict=True):
        rows += [(u, v, 1, 0, 0, 0, -x * u, -x * v), (0, 0, 0, u, v, 1, -y * u, -y * v)]
        values += [x, y]
    coefficients = np.linalg.lstsq(np.array(rows, float), np.array(values, float), rcond=None)[0]
    return image.transform(size, Image.Transform.PERSPECTIVE, coefficients.tolist(), Image.Resampling.BICUBIC)


def _rotate(a: np.ndarray, b: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(angle) * a - np.sin(angle) * b, np.sin(angle) * a + np.cos(angle) * b
