"""The check of a backbone's preprocessing on image files: those of a job, or of a folder."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.backbones.backbone import Backbone
from models.backbones.spec import WeightsFile
from utils.errors import UserError
from utils.images.loading import UnreadableImageError, read_image, resized_size
from utils.options.shared import BackboneOptions
from utils.weights.networks import load_backbone
from utils.weights.preprocessing_check import PreprocessingCheck, check_preprocessing

log = logging.getLogger(__name__)

IMAGES = 64
"""Number of images that are compared, evenly spaced in the list of all."""

FEWEST_IMAGES = 16
"""Number of images below which the statistics of an image count too much."""

LONGER_SIDE = 224
"""Longer side of the images in pixels: the side of most training images."""


class TooFewImagesError(UserError):
    """Raised if there are too few readable images for a check."""


class CheckOnImages(NamedTuple):
    """A check, and its number of images."""

    images: int
    check: PreprocessingCheck | None
    """None if the network has no batch norms that hold statistics."""


def check_on_images(
    options: BackboneOptions, paths: Sequence[Path], *, quick: bool, backbone: Backbone | None = None
) -> CheckOnImages:
    """Compare the preprocessing of a backbone with others on some images; unreadable images are left out.

    Args:
        options: the backbone and its weights.
        paths: image files.
        quick: as in `check_preprocessing`.
        backbone: the backbone with its weights, on the CPU and not folded; it is loaded if not given.

    Raises:
        TooFewImagesError: there are too few readable images.
        UserError: the weights cannot be read.
    """
    pixels = sample_pixels(paths) if len(paths) >= FEWEST_IMAGES else []
    if len(pixels) < FEWEST_IMAGES:
        raise TooFewImagesError(f"the check needs {FEWEST_IMAGES} readable images or more")
    if backbone is None:
        backbone = load_backbone(options.spec, options.weights_dir, options.backbone_weights)
    check = check_preprocessing(backbone.features, options.spec, pixels, quick=quick)
    return CheckOnImages(len(pixels), check)


def note_preprocessing(
    options: BackboneOptions, paths: Sequence[Path], backbone: Backbone | None = None
) -> None:
    """Log a note if the preprocessing does not fit weights that come from a file of the user.

    This takes some seconds. Weights in packages are not checked, since the tests of this project check them.

    Args:
        options: the backbone and its weights.
        paths: the image files of the job; there is no check if there are too few.
        backbone: as in `check_on_images`.

    Raises:
        UserError: the weights cannot be read.
    """
    if options.backbone_weights is None and not isinstance(options.spec.weights, WeightsFile):
        return
    try:
        check = check_on_images(options, paths, quick=True, backbone=backbone).check
    except TooFewImagesError:
        return
    problem = None if check is None else check.problem()
    if problem is not None:
        log.warning("note: the weights of %s: %s", options.backbone, problem)


def sample_pixels(paths: Sequence[Path]) -> list[Tensor]:
    """Return images (H, W, 3) uint8, RGB, resized with antialiasing, as for training."""
    pixels = []
    count = min(IMAGES, len(paths))
    for index in range(count):
        try:
            decoded = read_image(paths[index * len(paths) // count])
        except UnreadableImageError:
            continue
        height, width = resized_size(decoded.shape[0], decoded.shape[1], LONGER_SIDE)
        resized = Image.fromarray(decoded).resize((width, height), Image.Resampling.BICUBIC)
        pixels.append(torch.from_numpy(np.array(resized)))
    return pixels
