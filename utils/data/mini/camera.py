"""A camera that projects points of a scene, and the warping of flat images into its view."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

FOCAL_LENGTH = 1.1
"""Focal length in units of the longer side of the image."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at a building of height 1 at the origin."""

    size: tuple[int, int]
    """Width and height of the image in pixels."""
    yaw: float
    """Angle in radians, as are `pitch` and `roll`."""
    pitch: float
    roll: float
    scale: float
    """Height of the building in the image in pixels, if all angles are 0."""
    foot: tuple[float, float]
    """Pixel of the middle of the lower edge of the building."""

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels (N, 2) of points (N, 3); with yaw 0, x points right, y up and z away."""
        x, y, z = points.T
        x, z = _rotate(x, z, -self.yaw)
        y, z = _rotate(y, z, self.pitch)
        focal = FOCAL_LENGTH * max(self.size)
        depth = np.maximum(z + focal / self.scale, 0.05 * focal / self.scale)
        u, v = focal * x / depth, -focal * y / depth
        u, v = _rotate(u, v, self.roll)
        return np.stack([u + self.foot[0], v + self.foot[1]], axis=1)


def faces_camera(quad: np.ndarray) -> bool:
    """Return True if the corners (4, 2) are in clockwise order, so that the camera sees the front side."""
    following = np.roll(quad, -1, axis=0)
    return float(np.sum(quad[:, 0] * following[:, 1] - following[:, 0] * quad[:, 1])) > 0


def warp(image: Image.Image, quad: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Map the corners of an image, clockwise from the upper left, to the four pixels of `quad`."""
    top, side = (float(np.linalg.norm(quad[corner] - quad[0])) for corner in (1, 3))
    longest = max(top, side, 1.0)
    factor = int(max(image.size) / longest)
    if factor > 1:  # to avoid aliasing: the transform below does not filter when it reduces
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
