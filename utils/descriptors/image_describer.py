"""A network with the resize and the batches that descriptors need: from files or images in memory to rows."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.describe import describe
from utils.errors import UserError
from utils.files.paths import user_path
from utils.images.batches import Loading
from utils.images.loading import InputImage
from utils.processes import Processes

GivenImage = str | Path | InputImage | Image.Image | Tensor
GivenImages = GivenImage | Iterable[GivenImage]


class InvalidImageError(UserError, ValueError):
    """Raised for an object that is not an image as `ImageDescriber.describe` takes it."""


class ImageDescriber(nn.Module):
    """A retrieval network that describes images of any size.

    Args:
        network: the network, with one pooling and in evaluation mode.
        longer_side: S, the longer side of the resized image, in pixels.
        batch_size: the maximum number of images of one size per batch; None for one that suits the device.
        workers: the number of processes that decode images; None for one that suits the device.
    """

    def __init__(
        self,
        network: RetrievalNetwork,
        longer_side: int,
        batch_size: int | None = None,
        workers: int | None = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.longer_side = longer_side
        self.batch_size = batch_size
        self.workers = workers

    def describe(self, images: GivenImages) -> np.ndarray:
        """Describe images after resizing them to the longer side S.

        Args:
            images: one image or several: paths, images of Pillow, or uint8 tensors (3, H, W), RGB, as
                `torchvision.io.read_image` returns them. A tensor (N, 3, H, W) is N images. Images of Pillow
                are converted as files are: the EXIF orientation is applied, grey becomes RGB, and alpha is
                dropped.

        Returns:
            (N, D) float32, each row of Euclidean length 1.

        Raises:
            InvalidImageError: there are no images, or one is of another type or shape.
            UserError: an image is unreadable, or a descriptor is not finite.
        """
        inputs = input_images(images)
        device = self.network.backbone.device
        loading = Loading.on(device, self.longer_side, self.batch_size, self.workers)
        return describe(self.network, inputs, loading, Processes(0, 1, device)).rows[:]

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """Describe images of one size without resizing them.

        Args:
            pixels: (N, 3, H, W) uint8, RGB, on any device.

        Returns:
            (N, D) float32 on the device of the network.
        """
        prepared = self.network.backbone.prepare(pixels.permute(0, 2, 3, 1).contiguous())
        return cast(Tensor, self.network(prepared)).flatten(1)


def input_images(images: GivenImages) -> list[InputImage]:
    """Return images as the loading takes them; messages name an image in memory `images[0]` by its index.

    Raises:
        InvalidImageError: there are no images, or one is of another type or shape.
        UserError: a path is empty or has a null character.
    """
    is_single = isinstance(images, str | Path | InputImage | Image.Image)
    if is_single or (isinstance(images, Tensor) and images.ndim < 4):
        images = [cast(GivenImage, images)]
    elif not isinstance(images, Iterable) or isinstance(images, bytes | np.ndarray):
        raise _invalid("images", images)
    inputs = [_input_image(f"images[{index}]", image) for index, image in enumerate(images)]
    if not inputs:
        raise InvalidImageError("images is empty: give at least one image")
    return inputs


def _input_image(name: str, image: object) -> InputImage:
    """Return an image as the loading takes it.

    Args:
        name: the name in messages of an image in memory.
        image: the image.
    """
    if isinstance(image, InputImage):
        return image
    if isinstance(image, str | Path):
        return InputImage(user_path(image, "an image"))
    if isinstance(image, Image.Image):
        return InputImage(Path(name), in_memory=image)
    if not isinstance(image, Tensor):
        raise _invalid(name, image)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise InvalidImageError(
            f"{name} is a tensor of {image.dtype} with shape {tuple(image.shape)}: "
            "give torch.uint8 with shape (3, H, W), RGB"
        )
    return InputImage(Path(name), in_memory=image)


def _invalid(name: str, image: object) -> InvalidImageError:
    return InvalidImageError(
        f"{name} is a {type(image).__name__}: give a path, an image of Pillow, "
        "or a uint8 tensor (3, H, W), RGB"
    )
