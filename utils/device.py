"""The device and number type to compute with."""

import os
import re

import torch

from utils.errors import UserError

GPU_BATCH_SIZE = 16
CPU_BATCH_SIZE = 1
"""On a CPU one image already keeps every core busy, and larger batches fall out of its caches."""

GPU_WORKERS = 8
CORES_PER_CPU_WORKER = 8
"""A worker takes a core from a network on the CPU: with fewer cores that costs more than it gains."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device of that name, set up so that float32 means float32 and a run repeats itself.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ..., or `auto` for a GPU where there is one.

    Raises:
        UserError: there is no such device.
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
    # By default cuDNN rounds float32 inputs to 10 bits of mantissa, which moves descriptors by 1e-3, and it
    # may choose algorithms whose sums differ from run to run.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")  # the default, unless the environment says otherwise
    torch.backends.cudnn.deterministic = True
    return device


def suitable_batch_size(device: torch.device) -> int:
    """How many images of one size to describe at a time."""
    return GPU_BATCH_SIZE if device.type == "cuda" else CPU_BATCH_SIZE


def suitable_workers(device: torch.device) -> int:
    """How many processes should decode images; 0 for the one that computes."""
    cores = os.cpu_count() or 1
    return min(cores, GPU_WORKERS) if device.type == "cuda" else cores // CORES_PER_CPU_WORKER
