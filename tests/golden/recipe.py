"""Deterministic stand-in weights, so that golden values need no 170 MB checkpoint.

The golden arrays in this folder were computed by the original implementation with these weights.
"""

import numpy as np


def fill_state_dict(shapes, seed):
    """Arrays for a ResNet's state dict.

    shapes: dict of torchvision ResNet parameter name -> shape tuple (conv1.weight, layer1.0.bn3.running_var, ...).
    Returns a dict of name -> float32 array (int64 for num_batches_tracked); names are drawn in sorted order.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            out[name] = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            out[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif name.endswith("running_mean") or name.endswith("bias"):
            out[name] = (0.1 * rng.standard_normal(shape)).astype(np.float32)
        elif len(shape) == 4:
            gain = 0.02 if name == "conv1.weight" else 1.0
            out[name] = (gain * np.sqrt(2.0 / np.prod(shape[1:])) * rng.standard_normal(shape)).astype(
                np.float32
            )
        elif len(shape) == 2:
            out[name] = (0.02 * rng.standard_normal(shape)).astype(np.float32)
        else:
            scale = 0.3 if name.endswith("bn3.weight") else 1.0
            out[name] = (scale * rng.uniform(0.5, 1.5, shape)).astype(np.float32)
    return out


def pca_arrays(dim, seed):
    """Returns (pca_components.npy, pca_mean.npy) stand-ins: float32 of shape (dim, dim) and (dim,)."""
    rng = np.random.default_rng(1000 + seed)
    components = (rng.standard_normal((dim, dim)) / np.sqrt(dim)).astype(np.float32)
    return components, -np.abs(rng.standard_normal(dim)).astype(np.float32)
