"""PCA of a stream of vectors, learned in one pass and in constant memory.

The count, mean and scatter of the vectors are kept in float64. Each block of vectors is centred about its own
mean and its scatter merged into that of all before it, so that nothing is lost to a large mean: Chan, Golub
and LeVeque, "Algorithms for computing the sample variance", The American Statistician 37(3), 1983.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import NamedTuple

import numpy as np

from utils.errors import UserError

BLOCK = 4096
"""Vectors gathered before their scatter is taken: that of 2048 channels is 32 MiB, too much to go through for
the 20 vectors of each image."""
STATE = ("count", "mean", "scatter", "eps", "rows")


class _Solution(NamedTuple):
    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray


class StreamingPCA:
    """Principal components of vectors that come a few at a time.

    Reading a result changes nothing, to the bit: what is learned does not depend on when results were read
    or the state was saved. The components are computed when first read after new vectors; with fewer than 2
    vectors that is a UserError.

    The rank is the number of directions whose variance is more than rounding noise; the others, divided by
    the root of theirs, would be noise blown up to the size of everything else. They come last, with a
    variance of exactly 0: all past the first n - 1 of n vectors, and any whose variance is no more than

    - the noise of float64: the largest variance times the machine epsilon, times the channels or the vectors
      of a block, whichever are more; or
    - the noise of the vectors' type: up to eps|x| / 2 for a value x, hence a variance of up to
      eps^2 mean(x^2) / 12 in a channel, and in a direction their sum weighted with its squared entries.
      Twelve times as much counts as noise: of few vectors the noisiest direction exceeds the average.

    Args:
        channels: C, the width of the vectors.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._count = 0
        self._mean = np.zeros(channels)
        self._scatter = np.zeros((channels, channels))
        self._eps = 0.0  # of the coarsest type that vectors came in
        self._rows = np.empty((BLOCK, channels))
        self._filled = 0
        self._solution: _Solution | None = None

    def add(self, vectors: np.ndarray) -> None:
        """Add (n, C) vectors, n >= 0, in the floating-point type that they were computed in.

        Raises:
            UserError: a value is not finite; nothing was added.
            ValueError: the shape is another; nothing was added.
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
        """Add all vectors that another PCA of the same channels was given; that one stays as it is."""
        self._solution = None
        flushed = other._flushed()
        self._add_moments(flushed._count, flushed._mean, flushed._scatter)
        self._eps = max(self._eps, flushed._eps)

    def sum_processes(self, add_up: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace what each of several processes learned by what one would have learned from all vectors.

        Args:
            add_up: returns the sum of an array over all processes.
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
        """Return copies of all that was learned, the vectors that wait for a full block included."""
        values = (self._count, self._mean, self._scatter, self._eps, self._rows[: self._filled])
        return {name: np.array(value) for name, value in zip(STATE, values, strict=True)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from where `state_dict` was taken; what was learned before is replaced.

        Raises:
            UserError: the arrays are not those of a state of as many channels; nothing was replaced.
        """
        try:
            arrays = [np.array(state[name], np.float64) for name in STATE]
            count, mean, scatter, eps, rows = arrays
            shapes = [(), (self.channels,), (self.channels, self.channels), (), (len(rows), self.channels)]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("the saved state of the PCA is unreadable: start anew, without it") from error
        if [array.shape for array in arrays] != shapes or len(rows) >= BLOCK:
            raise UserError("the saved state of the PCA has arrays that do not fit: start anew, without it")
        if count < 0 or count % 1 or eps < 0 or not all(np.isfinite(array).all() for array in arrays):
            raise UserError("the saved state of the PCA holds impossible values: start anew, without it")
        self._count, self._mean, self._scatter, self._eps = int(count), mean, scatter, float(eps)
        self._rows[: len(rows)], self._filled = rows, len(rows)
        self._solution = None

    def whitened_components(self, number: int) -> np.ndarray:
        """Return the first components, each over the square root of its variance: (number, C) float64.

        Raises:
            UserError: the vectors carry fewer.
        """
        _, components, variances = self._solve()
        if number > self.rank:
            advice = f"--components {self.rank}" if self.rank else "learn from more images"
            raise UserError(
                f"the data carry {self.rank} components (from {self.count} vectors of {self.channels} "
                f"dimensions), not {number}: {advice}"
            )
        return components[:number] / np.sqrt(variances[:number, None])

    @property
    def components(self) -> np.ndarray:
        """(C, C) orthonormal rows by falling variance, the entry of largest magnitude of each positive."""
        return self._solve().components

    @property
    def variances(self) -> np.ndarray:
        """(C,) variances of the components, over n - 1."""
        return self._solve().variances

    @property
    def mean(self) -> np.ndarray:
        """(C,) mean of the vectors."""
        return self._solve().mean

    @property
    def rank(self) -> int:
        """Number of directions that the vectors carry, at most min(n - 1, C)."""
        return int(np.count_nonzero(self.variances))

    @property
    def count(self) -> int:
        """Number of vectors, n."""
        return self._count + self._filled

    def _add_moments(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Add vectors by their moments (Chan et al., 1983)."""
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
            # Less one of them first: then the mean of equal values is that value, with no rounding.
            first = rows[0].copy()
            rows -= first
            mean = rows.mean(axis=0)
            rows -= mean
            self._add_moments(len(rows), first + mean, rows.T @ rows)

    def _flushed(self) -> "StreamingPCA":
        """Return a copy in which no vector waits."""
        flushed = deepcopy(self)
        flushed._flush()
        return flushed

    def _solve(self) -> _Solution:
        """Return the mean, components and variances, computed once after new vectors.

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
    """Raise a UserError that names the first of (n, C) vectors with a value that is not finite."""
    for start in range(0, len(vectors), BLOCK):
        finite = np.isfinite(vectors[start : start + BLOCK]).all(axis=1)
        if not finite.all():
            raise UserError(f"vector {start + finite.argmin()} has a nan or an infinity: leave its image out")
