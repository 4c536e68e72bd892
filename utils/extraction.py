"""What a network says of pictures: decoded, batched by size, computed and brought back to the CPU."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.backbones import Backbone
from utils.errors import UserError
from utils.image_loading import Picture
from utils.size_batches import BadPicture, size_batches


class Output(NamedTuple):
    """Of pictures of one size their places in the list and the network's values, (N, ...) float32."""

    indices: list[int]
    values: np.ndarray


def network_outputs(
    network: nn.Module,
    backbone: Backbone,
    pictures: Sequence[Picture],
    *,
    longer_side: int,
    batch_size: int,
    workers: int,
) -> Iterator[Output | BadPicture]:
    """Runs a network over pictures, in an order that only depends on the arguments.

    Args:
        network: from (N, 3, H, W) images to (N, ...), on its device, with the backbone as `backbone`.
        backbone: that backbone's entry, which says how pixels are prepared.
        pictures: what to look at.
        longer_side: S, the longer side of the resized images, in pixels.
        batch_size: pictures of one size in a batch, at most.
        workers: processes that decode, 0 for this one.

    Yields:
        Every picture once, in an output or as a bad picture.

    Raises:
        UserError: a value is not finite, the memory does not suffice, or a worker died.
    """
    weight = next(network.backbone.parameters())
    for batch in size_batches(pictures, longer_side, batch_size, workers):
        if isinstance(batch, BadPicture):
            yield batch
            continue
        try:
            with torch.inference_mode():
                images = backbone.normalise(batch.pixels.to(weight.device)).to(weight.dtype)
                values = network(images).cpu().numpy()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise UserError("the memory does not suffice: try a smaller --batch-size or --S") from error
            raise
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            first = pictures[batch.indices[int(finite.argmin())]].path
            raise UserError(f"what the network says of {first} is not finite: try --precision float32")
        yield Output(batch.indices, values)
