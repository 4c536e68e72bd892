"""Deterministic random weights, so that the golden values need no checkpoint of 170 MB.

The original implementation computed the golden arrays in this folder with these weights.
"""

import numpy as np


def fill_state_dict(shapes, seed):
    """Return arrays for a ResNet's state dict, drawn in the sorted order of their names.

    Args:
        shapes: shape by torchvision's name of a parameter (conv1.weight, layer1.0.bn3.running_var, ...).
        seed: of the random numbers.

    Returns:
        float32 array by name, int64 for num_batches_tracked.
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
    """Return random arrays for pca_components.npy and pca_mean.npy, float32 of shape (dim, dim) and (dim,)."""
    rng = np.random.default_rng(1000 + seed)
    components = (rng.standard_normal((dim, dim)) / np.sqrt(dim)).astype(np.float32)
    return components, -np.abs(rng.standard_normal(dim)).astype(np.float32)
