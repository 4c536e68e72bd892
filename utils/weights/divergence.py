"""Divergence of the inputs of a network's batch norms from the statistics that these stored in training.

A batch norm stores the mean and the variance of each input channel over the images of the training. Other
images give similar values if they are preprocessed as in training and the layers are those that were trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.backbones.efficientnet_lite import SamePaddingConv2d
from models.backbones.preprocessing import Preprocessing


class Statistics(NamedTuple):
    """Mean and variance of each channel, (C,) float64 each."""

    mean: Tensor
    variance: Tensor

    def divergence(self, other: "Statistics") -> Tensor:
        """Return the Kullback-Leibler divergence of each channel in nats, as of normal distributions."""
        ratio = self.variance / other.variance
        distance = (self.mean - other.mean).square() / other.variance
        return (ratio + distance - 1 - ratio.log()) / 2


class _AllSeenError(Exception):
    """Raised to end a forward pass after the last batch norm of interest."""


class _Sums:
    """Sums over all values of each channel."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sums = torch.zeros(2, channels, dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        """Add maps (N, C, h, w)."""
        count = maps.numel() // maps.shape[1]
        mean = maps.mean((0, 2, 3), keepdim=True)
        variance = (maps - mean).square_().mean((0, 2, 3)).to(torch.float64)  # faster than torch.var
        mean = mean.flatten().to(torch.float64)
        self.count += count
        self.sums += count * torch.stack([mean, variance + mean.square()])

    def statistics(self, eps: float) -> Statistics:
        """Return the mean and the variance, with eps added to the variance."""
        mean, mean_square = self.sums / self.count
        return Statistics(mean, (mean_square - mean.square()).clamp(min=0) + eps)


def stored_statistics(features: nn.Module) -> dict[str, Statistics]:
    """Return what the batch norms stored in training, by name; eps is added to the variances.

    Batch norms that were never trained, or whose statistics were merged into other layers, are left out.
    """
    return {
        name: Statistics(norm.running_mean.to(torch.float64), norm.running_var.to(torch.float64) + norm.eps)
        for name, norm in _batch_norms(features).items()
        if norm.running_mean is not None
        and norm.running_var is not None
        and not (torch.all(norm.running_mean == 0) and torch.all(norm.running_var == 1))
    }


@torch.inference_mode()
def input_statistics(
    features: nn.Module, images: Sequence[Tensor], preprocessing: Preprocessing, layers: int | None = None
) -> dict[str, Statistics]:
    """Return the statistics of the inputs of batch norms, by name.

    Args:
        features: layers on the CPU in evaluation mode, with batch norms that are not folded.
        images: (H, W, 3) uint8, RGB.
        preprocessing: the preprocessing of the images.
        layers: number of batch norms with stored statistics, in the order of execution; all if not given.
    """
    names = stored_statistics(features)
    norms = {name: norm for name, norm in _batch_norms(features).items() if name in names}
    sums: dict[str, _Sums] = {}

    def record(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...], *, name: str) -> None:
        sums.setdefault(name, _Sums(norm.num_features)).add(inputs[0])
        if len(sums) == layers and name == next(reversed(sums)):
            raise _AllSeenError

    hooks = [norm.register_forward_pre_hook(partial(record, name=name)) for name, norm in norms.items()]
    try:
        for image in images:
            with suppress(_AllSeenError):
                features(preprocessing(image.unsqueeze(0)))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: layer.statistics(norms[name].eps) for name, layer in sums.items()}


def mean_divergence(inputs: Mapping[str, Statistics], stored: Mapping[str, Statistics]) -> float:
    """Return the divergence of inputs from stored statistics, averaged over channels and batch norms."""
    values = [layer.divergence(stored[name]).mean() for name, layer in inputs.items()]
    return torch.stack(values).mean().nan_to_num(nan=torch.inf, posinf=torch.inf).item()


def divergence_ratio(
    inputs: Mapping[str, Statistics], others: Mapping[str, Statistics], stored: Mapping[str, Statistics]
) -> float:
    """Return the divergence of other inputs divided by that of inputs, where the two differ.

    Channels are weighted by the divergence between the two inputs. What both have in common, such as the
    contrast of the images, so counts less than what distinguishes them.

    Returns:
        The geometric mean over batch norms: greater than 1 if `inputs` fit better than `others`.
    """
    ratios = []
    for name, layer in inputs.items():
        weights = layer.divergence(others[name]) + others[name].divergence(layer)
        one, other = (weights @ side.divergence(stored[name]) for side in (layer, others[name]))
        ratios.append((other / one).log())
    return torch.stack(ratios).mean().exp().nan_to_num(nan=1.0).item()


def movable_strides(features: nn.Module) -> dict[str, tuple[nn.Conv2d, nn.Conv2d]]:
    """Return the first two convolutions of each block in which one of them has a stride, by the block's name.

    ResNets for Caffe have the stride of a block in its first convolution, torchvision's in its second. Both
    give maps of the same size, since these convolutions keep the size but for their stride.
    """
    pairs = {}
    for name, block in features.named_modules():
        convolutions = [child for child in block.children() if isinstance(child, nn.Conv2d)][:2]
        if block is features or len(convolutions) < 2 or not all(map(_keeps_size, convolutions)):
            continue
        if (convolutions[0].stride == (1, 1)) != (convolutions[1].stride == (1, 1)):
            pairs[name] = (convolutions[0], convolutions[1])
    return pairs


@contextmanager
def strides_moved(pairs: Sequence[tuple[nn.Conv2d, nn.Conv2d]]) -> Iterator[None]:
    """Exchange the strides of pairs of convolutions while a block of code runs."""
    for first, second in pairs:
        first.stride, second.stride = second.stride, first.stride
    try:
        yield
    finally:
        for first, second in pairs:
            first.stride, second.stride = second.stride, first.stride


def _batch_norms(features: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: norm for name, norm in features.named_modules() if isinstance(norm, nn.BatchNorm2d)}


def _keeps_size(convolution: nn.Conv2d) -> bool:
    """Return whether the maps keep their size if the convolution has no stride."""
    if isinstance(convolution, SamePaddingConv2d):
        return True
    if isinstance(convolution.padding, str):
        return False
    sides = zip(convolution.kernel_size, convolution.dilation, convolution.padding, strict=True)
    return all(2 * padding == dilation * (kernel - 1) for kernel, dilation, padding in sides)
