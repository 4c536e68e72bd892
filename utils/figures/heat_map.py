"""Attention as an image: a map of weights, in colours of rising lightness, laid over what was looked at."""

import numpy as np
import torch
from PIL import Image

from models.retrieval_network import RetrievalNetwork
from utils.images.loading import InputImage, load_pixels

COLORS = "inferno"
"""matplotlib's name of the colours: their lightness rises evenly, so grey print keeps their order."""

OPACITY = 0.7
"""Share of the colours in a heat map; the rest is the image."""

CAPTION = "from the least (dark) to the greatest weight (bright) of each image"
"""The scale of a heat map, for people."""


def image_attention(network: RetrievalNetwork, image: InputImage, longer_side: int) -> np.ndarray:
    """Return a network's attention over an image, or over the part inside its box.

    Args:
        network: in evaluation mode, on its device.
        image: what to look at.
        longer_side: S, the longer side of the full image after resizing, in pixels.

    Returns:
        (h, w) float32 weights, one per cell of the backbone's map, as `RetrievalNetwork.attention_map` says.

    Raises:
        UnreadableImageError: the image cannot be decoded.
        EmptyBoxError: the box has no pixel inside the image.
        UserError: the memory does not suffice for the resized image.
    """
    pixels = load_pixels(image, longer_side).unsqueeze(0)
    with torch.inference_mode():
        return network.attention_map(network.backbone.prepare(pixels))[0].cpu().numpy()


def heat_map(heat: np.ndarray, pixels: np.ndarray) -> Image.Image:
    """Draws a map over its image, whose colours give way to those of the map.

    Each map is scaled from its own least to its own greatest value, so that colours of two images cannot be
    compared: say so where it is shown (CAPTION). One with the same value everywhere is drawn in the middle
    colour.

    Args:
        heat: (h, w) finite values.
        pixels: (H, W, 3) uint8, RGB.

    Returns:
        An RGB image of the image's size.

    Raises:
        ValueError: a value of the map is not finite.
    """
    low, high = heat_range(heat)
    scaled = ((heat - low) / (high - low)).astype(np.float32)
    image = Image.fromarray(pixels)
    # enlarged by Pillow, bilinear with half-pixel centres
    fine = np.asarray(Image.fromarray(scaled).resize(image.size, Image.Resampling.BILINEAR))
    colors = blended_colors(np.asarray(image.convert("L"), np.float64) / 255, fine)
    return Image.fromarray(np.rint(255 * colors).astype(np.uint8))


def blended_colors(grey: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Colours (..., 3) of places of some lightness (...) and scaled heat (...), all from 0 to 1."""
    from matplotlib import colormaps  # not before a map is drawn, as in `drawing`

    # on the image's lightness alone: its own colours would be taken for heat
    return OPACITY * colormaps[COLORS](scaled)[..., :3] + (1 - OPACITY) * np.asarray(grey)[..., None]


def heat_range(heat: np.ndarray) -> tuple[float, float]:
    """The values that have the darkest and the lightest colour.

    Raises:
        ValueError: a value is not finite.
    """
    low, high = float(heat.min()), float(heat.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("a heat map needs finite values")
    return (low, high) if low < high else (low - 0.5, high + 0.5)
