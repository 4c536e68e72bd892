"""Similarities of near duplicates, made of photographs, and of different photographs.

The copies are resized, compressed, cropped, brightened or darkened versions of a random sample of the
photographs. The table shows what `Search_Images.py duplicates` groups at some thresholds.

    python -m benchmarks.near_duplicates ~/Images
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.timing import machine
from utils.descriptors.image_describer import ImageDescriber
from utils.descriptors.prepared_network import prepared_network
from utils.descriptors.settings import descriptor_settings
from utils.device import choose_device
from utils.errors import UserError
from utils.images.loading import InputImage, read_image
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.photo_search.options import DescribeOptions
from utils.photo_search.queries import query_images
from utils.program.run_command import run_command
from utils.text import log_to_stderr

THRESHOLDS = (0.98, 0.96, 0.94, 0.92, 0.9, 0.88, 0.85, 0.8, 0.75, 0.7)


@options_class
class NearDuplicatesOptions(DescribeOptions):
    """Options of the measurement."""

    title = "measurement"

    photographs: tuple[Path, ...] = option(
        help="photographs, none twice, and folders of them", positional=True, separate=True
    )
    copied: int = option(default=30, help="photographs of which copies are made", valid=COUNTS)
    seed: int = option(default=0, help="seed of the choice of these", valid=Range(0, 2**32 - 1))


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that multiplies the width and height of an image by a factor."""

    def resize(image: Image.Image) -> Image.Image:
        size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
        return image.resize(size, Image.Resampling.LANCZOS)

    return resize


def compressed(quality: int) -> Callable[[Image.Image], Image.Image]:
    """Return a function that compresses an image as a JPEG."""

    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return compress


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that removes a share of the width and height of an image, half of it at each edge."""

    def crop(image: Image.Image) -> Image.Image:
        x, y = round(image.width * share / 2), round(image.height * share / 2)
        return image.crop((x, y, image.width - x, image.height - y))

    return crop


def brightness(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that multiplies the values of an image by a factor."""
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def shared_by_a_phone(image: Image.Image) -> Image.Image:
    """Return a slightly cropped, smaller and compressed image."""
    return compressed(60)(resized(0.75)(cropped(0.05)(image)))


WEAK: dict[str, Callable[[Image.Image], Image.Image]] = {
    "3/4 of the width and height": resized(0.75),
    "JPEG of quality 60": compressed(60),
    "cropped by 5 %": cropped(0.05),
    "brighter, factor 1.2": brightness(1.2),
    "darker, factor 0.8": brightness(0.8),
    "cropped by 5 %, 3/4, JPEG 60": shared_by_a_phone,
}
STRONG: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the width and height": resized(0.5),
    "JPEG of quality 30": compressed(30),
    "cropped by 15 %": cropped(0.15),
    "brighter, factor 1.4": brightness(1.4),
    "darker, factor 0.6": brightness(0.6),
}


def report(options: NearDuplicatesOptions) -> None:
    """Print the similarities of copies, and the shares of pairs at each threshold."""
    images = query_images(options.photographs)
    if len(images) < 2:
        raise UserError("photographs has one image: name a folder of several")
    settings = descriptor_settings(options, [options.pooling])
    network = prepared_network(options, settings, choose_device(options.device))
    describer = ImageDescriber(network, options.longer_side, options.batch_size, options.workers)
    rows = describer.describe([InputImage(image.path) for image in images])
    rng = np.random.default_rng(options.seed)
    chosen = rng.permutation(len(images))[: options.copied]
    originals = [Image.fromarray(read_image(images[index].path)) for index in chosen]
    print(
        f"{machine()}, {options.backbone}, S {options.longer_side}: {len(images)} photographs, "
        f"copies of {len(chosen)}\n\n| copies | least similarity | median |\n|---|---|---|"
    )
    similarities = {}
    for kind, changes in (("weak", WEAK), ("strong", STRONG)):
        parts = []
        for name, change in changes.items():
            copies = describer.describe([change(original) for original in originals])
            parts.append((copies * rows[chosen]).sum(axis=1))
            print(f"| {name} | {parts[-1].min():.3f} | {np.median(parts[-1]):.3f} |")
        similarities[kind] = np.concatenate(parts)
    different = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    print(
        "\n| threshold | weakly changed copies at or above it | strongly changed copies | "
        f"pairs of different photographs, of {len(different)} |\n|---|---|---|---|"
    )
    for threshold in THRESHOLDS:
        weak, strong = ((similarities[kind] >= threshold).mean() for kind in ("weak", "strong"))
        print(f"| {threshold:.2f} | {weak:.0%} | {strong:.0%} | {(different >= threshold).sum()} |")
    print("\nmost similar pairs of photographs:")
    for index in np.argsort(-different)[:10]:
        first, second = (part[index] for part in np.triu_indices(len(rows), 1))
        print(f"{different[index]:.3f}\t{images[first].path}\t{images[second].path}")


def command_line() -> None:
    """Read the options and print the tables."""
    report(parse_options(NearDuplicatesOptions, __doc__.splitlines()[0]))


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_command(command_line))
