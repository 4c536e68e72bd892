"""Outputs of a network for images, which are decoded, batched by size and processed on a device."""

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
"""Modules of the exceptions of torch's compiler, compared by name because importing them takes seconds."""


class Output(NamedTuple):
    """Outputs of the network for images of one size."""

    indices: list[int]
    """Indices of the images in the list."""
    values: np.ndarray
    """(N, ...) float32."""


def network_outputs(
    network: RetrievalNetwork,
    images: Sequence[InputImage],
    loading: Loading,
    *,
    compute: Callable[[Tensor], Tensor] | None = None,
    block: int = 0,
) -> Iterator[Output | UnreadableImage]:
    """Run a network on images, in an order that depends only on the arguments.

    Args:
        network: the network, in evaluation mode.
        images: the images.
        loading: the settings of the loading.
        compute: a method of the network, from prepared images (N, 3, H, W) to (N, ...); by default, the
            method that computes descriptors.
        block: the number of images per block; all images of a block are yielded before the next block
            starts. 0 for a single block.

    Yields:
        Every image once, in an output or as an unreadable image.

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
                yield fetch_output(images, *running)
                running = None
            yield batch
            continue
        with computation_errors(), torch.inference_mode():
            pixels = to_device(batch.pixels, device, copies)
            values = compute(network.backbone.prepare(pixels))
        # A GPU computes asynchronously: meanwhile, fetch the previous batch and decode the next one.
        if running is not None:
            yield fetch_output(images, *running)
        running = (batch.indices, values)
    if running is not None:
        yield fetch_output(images, *running)


def to_device(pixels: Tensor, device: torch.device, copies: torch.cuda.Stream | None) -> Tensor:
    """Copy pixels to a device; a GPU copies in the stream `copies`, in parallel to its computations."""
    if copies is None:
        return pixels.to(device)
    with torch.cuda.stream(copies):
        copied = pixels.pin_memory().to(device, non_blocking=True)
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(copies)
    copied.record_stream(computing)  # keeps its memory from being reused before the computation ends
    return copied


def fetch_output(images: Sequence[InputImage], indices: list[int], values: Tensor) -> Output:
    """Wait for the values of a batch, copy them to the CPU and check them.

    Raises:
        UserError: a value is not finite, or the memory does not suffice.
    """
    with computation_errors():
        array = values.cpu().numpy()
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        first = images[indices[int(finite.argmin())]].path
        raise UserError(f"the output of the network for {first} is not finite: try --precision float32")
    return Output(indices, array)


@contextmanager
def computation_errors() -> Iterator[None]:
    """Convert the errors of torch about lack of memory and failed compilation to a UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if line := outside_error(error):
            raise UserError(line) from error
        if type(error).__module__.startswith(COMPILER):
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"torch cannot compile the backbone ({reason}): leave --compile out") from error
        raise
