"""Descriptors of pictures: the loop that feeds the network."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from models.backbones import Backbone
from models.retrieval_network import RetrievalNetwork
from utils.device import suitable_batch_size, suitable_workers
from utils.errors import UserError
from utils.image_loading import Picture, UnreadableImageError
from utils.size_batches import BadPicture, size_batches


class Descriptors(NamedTuple):
    """One row a picture, (N, D) float32, and the pictures that could not be decoded, whose rows are zero."""

    rows: np.ndarray
    bad: dict[int, UnreadableImageError]


@torch.inference_mode()
def describe(
    network: RetrievalNetwork,
    backbone: Backbone,
    pictures: Sequence[Picture],
    *,
    longer_side: int,
    batch_size: int | None = None,
    workers: int | None = None,
    skip_bad_images: bool = False,
    title: str = "images",
) -> Descriptors:
    """Describes pictures by a network.

    Args:
        network: in evaluation mode, on its device.
        backbone: the entry of its backbone, which says how pixels are prepared.
        pictures: what to describe.
        longer_side: S, the longer side of the resized images, in pixels.
        batch_size: pictures of one size in a batch, at most; None for what suits the device.
        workers: processes that decode, 0 for this one; None for what suits the device.
        skip_bad_images: go on after a picture that cannot be decoded.
        title: what the progress bar calls the pictures.

    Raises:
        UnreadableImageError: a picture cannot be decoded, unless those are skipped.
        UserError: a descriptor is not finite, or the GPU's memory does not suffice.
    """
    weight = next(network.backbone.parameters())
    batch_size = suitable_batch_size(weight.device) if batch_size is None else batch_size
    workers = suitable_workers(weight.device) if workers is None else workers
    rows: np.ndarray | None = None
    bad: dict[int, UnreadableImageError] = {}
    batches = size_batches(pictures, longer_side, batch_size, workers)
    with tqdm(total=len(pictures), desc=title, unit="image", disable=None) as progress:
        for batch in batches:
            if isinstance(batch, BadPicture):
                if not skip_bad_images:
                    raise batch.error
                bad[batch.index] = batch.error
                progress.update()
                continue
            try:
                images = backbone.normalise(batch.pixels.to(weight.device)).to(weight.dtype)
                found = network(images).cpu().numpy()
            except torch.OutOfMemoryError as error:
                raise UserError(
                    "the GPU's memory does not suffice: try a smaller --batch-size or --S"
                ) from error
            if not np.isfinite(found).all():
                first = pictures[batch.indices[int(np.isfinite(found).all(1).argmin())]].path
                raise UserError(f"the descriptor of {first} is not finite: try --precision float32")
            if rows is None:
                rows = np.zeros((len(pictures), found.shape[1]), np.float32)
            rows[batch.indices] = found
            progress.update(len(batch.indices))
    if rows is None:
        raise UserError(f"none of the {len(pictures)} {title} can be decoded")
    return Descriptors(rows, bad)
