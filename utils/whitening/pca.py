"""PCA of a stream of vectors, learned in one pass and in constant memory.

The count, mean and scatter of the vectors are kept in float64. Each block of vectors is centred about the
mean of the block before its scatter is merged into the total, so that a large mean causes no loss of
precision: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician
37(3), 1983.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import NamedTuple

import numpy as np

from utils.errors import UserError

BLOCK = 4096
"""Number of vectors that are collected before the scatter is updated. For 2048 channels, the scatter has
32 MiB, and an update per image, with about 20 vectors, would be slow."""
STATE = ("count", "mean", "scatter", "eps", "rows")


class _Solution(NamedTuple):
    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray


class StreamingPCA:
    """Principal components of vectors that are added a few at a time.

    Reading results and saving the state do not change later results, to the bit. The components are computed
    when they are first read after new vectors; with fewer than 2 vectors, this raises a UserError.

    The rank is the number of directions whose variance exceeds rounding noise. Whitening would amplify the
    noise in the remaining directions, so these come last and have a variance of exactly 0. They are all
    directions after the first n - 1 for n vectors, and all directions whose variance does not exceed

    - the noise of float64: the largest variance times the machine epsilon, times the number of channels or of
      vectors in a block, whichever is larger; or
    - the noise of the vectors' type: a value x has a rounding error of up to eps|x| / 2, which is a variance
      of up to eps^2 mean(x^2) / 12 per channel. In a direction, it is the sum over channels, weighted with
      the squared components of the direction. The limit is twelve times as large, since the noisiest
      direction of few vectors exceeds the average.

    Args:
        channels: C, the width of the vectors.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._count = 0
        self._mean = np.zeros(channels)
        self._scatter = np.zeros((channels, channels))
        self._eps = 0.0  # machine epsilon of the least precise type of the vectors
        self._rows = np.empty((BLOCK, channels))
        self._filled = 0
        self._solution: _Solution | None = None

    def add(self, vectors: np.ndarray) -> None:
        """Add (n, C) vectors, n >= 0, in the floating-point type in which they were computed.

        Raises:
            UserError: a value is not finite. No vector is added.
            ValueError: the vectors have another shape. No vector is added.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.channels:
            raise ValueError(f"vectors must be (n, {self.channels}), not {vectors.shape}")
        _check_finite(vectors)
        self._solution = None
        self._eps = max(self._eps, float(np.finfo(vectors.dtype).eps))
        while len(vectors):
            taken = vectors[: BLOCK - self._filled]
            self._rows[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            vectors = vectors[len(taken) :]
            if self._filled == BLOCK:
                self._flush()

    def merge(self, other: "StreamingPCA") -> None:
        """Add all vectors of another PCA with the same number of channels, without changing the other PCA."""
        self._solution = None
        flushed = other._flushed()
        self._add_moments(flushed._count, flushed._mean, flushed._scatter)
        self._eps = max(self._eps, flushed._eps)

    def sum_processes(self, add_up: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace the statistics of each process with the statistics of the vectors of all processes.

        Args:
            add_up: function that returns the sum of an array over all processes.
        """
        self._solution = None
        self._flush()
        total = int(add_up(np.array(self._count)))
        if total:
            mean = add_up(self._mean * self._count) / total
            root = (self._mean - mean) * np.sqrt(self._count)
            self._scatter = add_up(self._scatter + np.outer(root, root))
            self._count, self._mean = total, mean

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of the statistics, and of the vectors that wait for a full block."""
        values = (self._count, self._mean, self._scatter, self._eps, self._rows[: self._filled])
        return {name: np.array(value) for name, value in zip(STATE, values, strict=True)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the statistics with a state returned by `state_dict`.

        Raises:
            UserError: the arrays are no state for this number of channels. The statistics are then unchanged.
        """
        try:
            arrays = [np.array(state[name], np.float64) for name in STATE]
            count, mean, scatter, eps, rows = arrays
            shapes = [(), (self.channels,), (self.channels, self.channels), (), (len(rows), self.channels)]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("the saved state of the PCA is unreadable: start anew without it") from error
        if [array.shape for array in arrays] != shapes or len(rows) >= BLOCK:
            raise UserError("the saved state of the PCA has arrays of other shapes: start anew without it")
        if count < 0 or count % 1 or eps < 0 or not all(np.isfinite(array).all() for array in arrays):
            raise UserError("the saved state of the PCA holds impossible values: start anew without it")
        self._count, self._mean, self._scatter, self._eps = int(count), mean, scatter, float(eps)
        self._rows[: len(rows)], self._filled = rows, len(rows)
        self._solution = None

    def whitened_components(self, number: int) -> np.ndarray:
        """Return the first components, each divided by the square root of its variance, (number, C) float64.

        Raises:
            UserError: the vectors have fewer components.
        """
        _, components, variances = self._solve()
        if number > self.rank:
            advice = f"--components {self.rank}" if self.rank else "learn from more images"
            raise UserError(
                f"the data have only {self.rank} components (from {self.count} vectors of {self.channels} "
                f"dimensions), not {number}: {advice}"
            )
        return components[:number] / np.sqrt(variances[:number, None])

    @property
    def components(self) -> np.ndarray:
        """Components (C, C) as orthonormal rows, in order of decreasing variance.

        The value of largest magnitude in each component is positive.
        """
        return self._solve().components

    @property
    def variances(self) -> np.ndarray:
        """Variances (C,) of the components, with divisor n - 1."""
        return self._solve().variances

    @property
    def mean(self) -> np.ndarray:
        """Mean (C,) of the vectors."""
        return self._solve().mean

    @property
    def rank(self) -> int:
        """Number of components with a variance greater than 0, at most min(n - 1, C)."""
        return int(np.count_nonzero(self.variances))

    @property
    def count(self) -> int:
        """Number of vectors, n."""
        return self._count + self._filled

    def _add_moments(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Add vectors, given their count, mean and scatter (Chan et al., 1983)."""
        if count:
            total = self._count + count
            step = mean - self._mean
            root = step * np.sqrt(self._count / total * count)
            self._scatter += scatter
            self._scatter += np.outer(root, root)
            self._mean += step * (count / total)
            self._count = total

    def _flush(self) -> None:
        """Add the vectors that wait for a full block."""
        if self._filled:
            rows, self._filled = self._rows[: self._filled], 0
            # The first vector is subtracted first, so that the mean of equal values has no rounding error.
            first = rows[0].copy()
            rows -= first
            mean = rows.mean(axis=0)
            rows -= mean
            self._add_moments(len(rows), first + mean, rows.T @ rows)

    def _flushed(self) -> "StreamingPCA":
        """Return a copy in which no vector waits for a full block."""
        flushed = deepcopy(self)
        flushed._flush()
        return flushed

    def _solve(self) -> _Solution:
        """Return the mean, components and variances, which are computed once after new vectors.

        Raises:
            UserError: there are fewer than 2 vectors.
        """
        if self._solution is None:
            if self.count < 2:
                raise UserError(f"a PCA needs 2 vectors or more, not {self.count}: use more images")
            flushed = self._flushed()
            variances, vectors = np.linalg.eigh(flushed._scatter / (flushed._count - 1))
            variances, components = variances[::-1], vectors.T[::-1]
            squares = flushed._scatter.diagonal() / flushed._count + flushed._mean**2
            float64_noise = np.finfo(np.float64).eps * max(self.channels, min(flushed._count, BLOCK))
            noise = np.maximum(variances[0] * float64_noise, flushed._eps**2 * (components**2 @ squares))
            real = (variances > noise) & (np.arange(self.channels) < flushed._count - 1)
            order = np.argsort(~real, kind="stable")
            components = components[order]
            peaks = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
            variances = np.where(real, variances, 0.0)[order]
            self._solution = _Solution(flushed._mean, components * np.sign(peaks), variances)
        return self._solution


def _check_finite(vectors: np.ndarray) -> None:
    """Check that (n, C) vectors are finite.

    Raises:
        UserError: a vector is not finite. The message names the first such vector.
    """
    for start in range(0, len(vectors), BLOCK):
        finite = np.isfinite(vectors[start : start + BLOCK]).all(axis=1)
        if not finite.all():
            raise UserError(f"vector {start + finite.argmin()} has a nan or an infinity: leave its image out")
