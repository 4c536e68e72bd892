"""What a network says of images: decoded, batched by size, computed and brought back to the CPU."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.retrieval_network import RetrievalNetwork
from utils.errors import UserError
from utils.images.batches import Loading, UnreadableImage, size_batches
from utils.images.loading import InputImage
from utils.program.outside_errors import outside_error

COMPILER = ("torch._dynamo", "torch._inductor")
"""Where torch's compiler defines its errors, which are imported with it alone, as that takes seconds."""


class Output(NamedTuple):
    """Of images of one size their places in the list and the network's values, (N, ...) float32."""

    indices: list[int]
    values: np.ndarray


def network_outputs(
    network: RetrievalNetwork,
    images: Sequence[InputImage],
    loading: Loading,
    *,
    compute: Callable[[Tensor], Tensor] | None = None,
    block: int = 0,
) -> Iterator[Output | UnreadableImage]:
    """Runs a network over images, in an order that only depends on the arguments.

    Args:
        network: in evaluation mode, on its device.
        images: what to look at.
        loading: how they are loaded.
        compute: a method of the network, from prepared images (N, 3, H, W) to (N, ...); the descriptors if
            not given.
        block: images that are all out before the next ones; 0 for no such blocks.

    Yields:
        Every image once, in an output or as a bad image.

    Raises:
        UserError: a value is not finite, the memory does not suffice, or a worker died.
    """
    compute = network if compute is None else compute
    device = network.backbone.device
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None
    running: tuple[list[int], Tensor] | None = None
    for batch in size_batches(images, loading, block):
        if isinstance(batch, UnreadableImage):
            if running is not None:
                yield finished(images, *running)
                running = None
            yield batch
            continue
        with told_of_failures(), torch.inference_mode():
            pixels = to_device(batch.pixels, device, copies)
            values = compute(network.backbone.prepare(pixels))
        # A GPU is only told what to do. Meanwhile the batch before is waited for and the next decoded.
        if running is not None:
            yield finished(images, *running)
        running = (batch.indices, values)
    if running is not None:
        yield finished(images, *running)


def to_device(pixels: Tensor, device: torch.device, copies: torch.cuda.Stream | None) -> Tensor:
    """Brings pixels to the device; to a GPU beside what it computes, in the stream `copies`."""
    if copies is None:
        return pixels.to(device)
    with torch.cuda.stream(copies):
        there = pixels.pin_memory().to(device, non_blocking=True)
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(copies)
    there.record_stream(computing)  # or its memory would be given away once Python forgets it
    return there


def finished(images: Sequence[InputImage], indices: list[int], values: Tensor) -> Output:
    """Waits for a batch's values and checks them.

    Raises:
        UserError: a value is not finite, or the memory did not suffice.
    """
    with told_of_failures():
        array = values.cpu().numpy()
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        first = images[indices[int(finite.argmin())]].path
        raise UserError(f"what the network says of {first} is not finite: try --precision float32")
    return Output(indices, array)


@contextmanager
def told_of_failures() -> Iterator[None]:
    """Turns what torch raises where memory is short, or where it cannot compile, into a user error."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if line := outside_error(error):
            raise UserError(line) from error
        if type(error).__module__.startswith(COMPILER):
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"torch cannot compile the backbone ({reason}): leave --compile out") from error
        raise
