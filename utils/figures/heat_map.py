"""Heat maps of attention: weights as colours of increasing lightness, blended with the image."""

import numpy as np
import torch
from PIL import Image

from models.retrieval_network import RetrievalNetwork
from utils.images.loading import InputImage, load_pixels

COLORS = "inferno"
"""Matplotlib's name of the colours. Their lightness increases evenly, so grey print keeps their order."""

OPACITY = 0.7
"""Share of the colours in a heat map; the remaining share is the image."""

CAPTION = "from the least (dark) to the greatest weight (bright) of each image"
"""Description of the scale of a heat map."""


def image_attention(network: RetrievalNetwork, image: InputImage, longer_side: int) -> np.ndarray:
    """Return the attention of a network over an image, or over the part inside its box.

    Args:
        network: network in evaluation mode, on its device.
        image: the image.
        longer_side: S, the longer side of the complete image after resizing, in pixels.

    Returns:
        (h, w) float32 weights, one per cell of the feature map; see `RetrievalNetwork.attention_map`.

    Raises:
        UnreadableImageError: the image cannot be decoded.
        EmptyBoxError: the box has no pixel inside the image.
        UserError: the memory does not suffice for the resized image.
    """
    pixels = load_pixels(image, longer_side).unsqueeze(0)
    with torch.inference_mode():
        return network.attention_map(network.backbone.prepare(pixels))[0].cpu().numpy()


def heat_map(heat: np.ndarray, pixels: np.ndarray) -> Image.Image:
    """Draw a heat map over its image in grey.

    Each map is scaled from its least to its greatest value, so that the colours of two images cannot be
    compared; show CAPTION beside it. A map of equal values has the middle colour.

    Args:
        heat: (h, w) finite values.
        pixels: (H, W, 3) uint8, RGB.

    Returns:
        An RGB image of the size of the original image.

    Raises:
        ValueError: a value of the map is not finite.
    """
    low, high = heat_range(heat)
    scaled = ((heat - low) / (high - low)).astype(np.float32)
    image = Image.fromarray(pixels)
    # Pillow enlarges it, bilinear with half-pixel centres.
    fine = np.asarray(Image.fromarray(scaled).resize(image.size, Image.Resampling.BILINEAR))
    colors = blended_colors(np.asarray(image.convert("L"), np.float64) / 255, fine)
    return Image.fromarray(np.rint(255 * colors).astype(np.uint8))


def blended_colors(grey: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) for lightness (...) of the image and scaled heat (...), all from 0 to 1."""
    from matplotlib import colormaps  # here, since the import takes long

    # Only the lightness of the image is used, since its colours would look like heat.
    return OPACITY * colormaps[COLORS](scaled)[..., :3] + (1 - OPACITY) * np.asarray(grey)[..., None]


def scale_colors() -> list[str]:
    """Return the colours of the scale of a heat map, from dark to bright, as #rrggbb."""
    from matplotlib import colormaps  # here, since the import takes long
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[COLORS](step / 8)) for step in range(9)]


def heat_range(heat: np.ndarray) -> tuple[float, float]:
    """Return the values that have the darkest and the lightest colour.

    Raises:
        ValueError: a value is not finite.
    """
    low, high = float(heat.min()), float(heat.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("a heat map needs finite values")
    return (low, high) if low < high else (low - 0.5, high + 0.5)
