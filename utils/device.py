"""Device, number types, and suitable batch sizes and worker counts."""

import os
import re

import torch
from torch import nn

from utils.errors import UserError

GPU_BATCH_SIZE = 16
CPU_BATCH_SIZE = 1
"""One image already occupies all cores of a CPU, and larger batches do not fit the caches."""

GPU_WORKERS = 8
CORES_PER_CPU_WORKER = 8
"""Cores per worker process: a worker takes computing time from the network, so few cores need no worker."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return a device by name, and configure torch for full float32 precision and reproducible results.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ..., or `auto` for a GPU if available, else the CPU.

    Raises:
        UserError: the device does not exist or cannot be used.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"device {name!r} cannot be used: it is auto, cpu, cuda, or one GPU as cuda:1")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used ({reason}); --device cpu always works") from error
    # By default, cuDNN rounds float32 inputs to 10 bits of mantissa, which changes descriptors by 1e-3. It
    # may also choose nondeterministic algorithms.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")  # the default, but environment variables may change it
    torch.backends.cudnn.deterministic = True
    return device


def suitable_batch_size(device: torch.device) -> int:
    """Return the number of images per batch."""
    return GPU_BATCH_SIZE if device.type == "cuda" else CPU_BATCH_SIZE


def suitable_workers(device: torch.device) -> int:
    """Return the number of worker processes that decode images; 0 to decode in the main process."""
    cores = os.cpu_count() or 1
    return min(cores, GPU_WORKERS) if device.type == "cuda" else cores // CORES_PER_CPU_WORKER


def suitable_memory_format(device: torch.device, layers: nn.Module) -> torch.memory_format:
    """Return the memory format that convolutional layers are fastest in.

    The format is channels_last, except for depthwise convolutions on a GPU: cuDNN needs 2 s per new size
    to prepare them in channels_last, but 0.06 s in the default format (EfficientNet-Lite0, H200, torch 2.11).
    Photographs have many sizes.
    """
    has_groups = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers.modules())
    return torch.contiguous_format if device.type == "cuda" and has_groups else torch.channels_last
