"""GeM: the generalised mean of each channel over the entire feature map.

Radenović, Tolias and Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019, section
3.2.
"""

from typing import ClassVar, Self

from torch import Tensor

from models.poolings.pooling import GlobalPooling, PoolingParts

DEFAULT_P = 3.0
"""The exponent that the published implementation starts to train from."""

LARGEST_P = 100
"""Largest exponent. There, the generalised mean of 1024 cells is 0.93 to 1 times their maximum."""

LEAST_FEATURE = 1e-6
"""Lower bound of the features, as published; smaller features, also negative ones, are replaced by it."""


class GeM(GlobalPooling):
    """GeM pooling.

    Args:
        p: the exponent; 1 for the mean, and towards the maximum as p grows.

    Raises:
        ValueError: p is not from 1 to LARGEST_P.
    """

    name: ClassVar[str] = "gem"
    options: ClassVar[frozenset[str]] = frozenset({"gem_p"})

    def __init__(self, p: float = DEFAULT_P) -> None:
        super().__init__()
        check_p(p)
        self.p = p

    @classmethod
    def build(cls, parts: PoolingParts) -> Self:
        """Return the pooling with the exponent of the parts."""
        return cls(parts.gem_p)

    def pool(self, maps: Tensor) -> Tensor:
        """Return the generalised mean of each channel, (N, C), at least LEAST_FEATURE."""
        return generalized_mean(positive(maps), self.p, (2, 3))


def check_p(p: float) -> None:
    """Check an exponent.

    Raises:
        ValueError: the exponent is not from 1 to LARGEST_P.
    """
    if not 1 <= p <= LARGEST_P:
        raise ValueError(f"the exponent of GeM must be from 1 to {LARGEST_P}")


def positive(features: Tensor) -> Tensor:
    """Return the features with LEAST_FEATURE in place of smaller ones."""
    return features.clamp(min=LEAST_FEATURE)


def generalized_mean(values: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    """Return the p-th root of the mean of the p-th powers of values; 0 if all values are 0.

    Args:
        values: any shape, 0 or at least LEAST_FEATURE.
        p: the exponent, at least 1.
        dims: the dimensions to take the mean over, which are removed.
    """
    # Powers of the values themselves overflow: 1000 ** 13 is infinite in float32. The generalised mean is
    # proportional to the values, so divide by their maximum first and multiply by it last. The result does
    # not depend on the divisor, which is therefore a constant for autograd.
    largest = values.detach().amax(dims, keepdim=True).clamp(min=LEAST_FEATURE)
    return (values / largest).pow(p).mean(dims).pow(1 / p) * largest.squeeze(dims)
