"""PCA of a stream of vectors, learned in one pass and in constant memory, with scikit-learn's results.

The count, mean and scatter of the vectors are kept in float64. Each block of vectors is centred about its own
mean and its scatter merged into that of all before it, so that nothing is lost to a large mean: Chan, Golub
and LeVeque, "Algorithms for computing the sample variance", The American Statistician 37(3), 1983.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

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

    Results have the names that they have in scikit-learn, but this is none of its estimators: it can be
    neither cloned nor put in a pipeline.

    Reading changes nothing, to the bit: what is learned does not depend on when it was looked at or saved.
    The components are computed when first asked for after new vectors; with fewer than 2 that is a UserError.

    The rank is the number of directions whose variance is more than rounding noise; the others, divided by
    the root of theirs, would be noise blown up to the size of everything else. They come last, with a
    variance of exactly 0: all past the first n - 1 of n vectors, and any whose variance is no more than

    - the noise of float64: the largest variance times the machine epsilon, times the channels or the vectors
      of a block, whichever are more; or
    - the noise of the vectors' own type: up to eps|x| / 2 for a value x, hence a variance of up to
      eps^2 mean(x^2) / 12 in a channel, and in a direction their sum weighted with its squared entries.
      Twelve times as much counts as noise: of few vectors the noisiest direction exceeds the average.

    Args:
        n_components: how many components to keep, D; None is all C.
        whiten: whether `transform` divides by the root of the variance.
    """

    _count: int
    _mean: np.ndarray
    _scatter: np.ndarray
    _eps: float
    _rows: np.ndarray
    _filled: int
    _solution: _Solution | None

    def __init__(self, n_components: int | None = None, whiten: bool = True) -> None:
        if n_components is not None and n_components < 1:
            raise ValueError(f"n_components must be at least 1, not {n_components}")
        self.n_components = n_components
        self.whiten = whiten
        self._start(0)

    def fit(self, X: ArrayLike) -> Self:
        """Learns from (n, C) vectors alone; raises what `partial_fit` raises, then keeping what it had."""
        vectors = _checked(X)
        self._start(vectors.shape[1])
        return self.partial_fit(vectors)

    def partial_fit(self, X: ArrayLike) -> Self:
        """Adds (n, C) vectors, n >= 0, in the type whose rounding they have been through.

        Raises:
            UserError: a value is not finite; nothing was added.
            ValueError: these are no vectors, or not as wide as those before; nothing was added.
        """
        vectors = _checked(X)
        self._agree_on(vectors.shape[1])
        self._solution = None
        self._eps = max(self._eps, float(np.finfo(vectors.dtype).eps))
        while len(vectors):
            taken = vectors[: BLOCK - self._filled]
            self._rows[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            vectors = vectors[len(taken) :]
            if self._filled == BLOCK:
                self._flush()
        return self

    def merge(self, other: "StreamingPCA") -> Self:
        """Adds all vectors that another estimator has seen; that one stays as it is.

        Raises:
            ValueError: its vectors are not as wide; nothing was added.
        """
        if other._width:
            self._agree_on(other._width)
            self._solution = None
            whole = other._flushed()
            self._add(whole._count, whole._mean, whole._scatter)
            self._eps = max(self._eps, whole._eps)
        return self

    def summed(self, add_up: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Becomes, in each of several processes, what one would have learned from the vectors of all.

        Every process must know the width of the vectors, if only from none of them, (0, C).

        Args:
            add_up: gives the sum of an array over all processes.
        """
        self._solution = None
        self._flush()
        total = int(add_up(np.array(self._count)))
        if total:
            mean = add_up(self._mean * self._count) / total
            root = (self._mean - mean) * np.sqrt(self._count)
            self._scatter = add_up(self._scatter + np.outer(root, root))
            self._count, self._mean = total, mean
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all that was learned, for np.savez, the vectors that wait for a full block included."""
        values = (self._count, self._mean, self._scatter, self._eps, self._rows[: self._filled])
        return {name: np.array(value) for name, value in zip(STATE, values, strict=True)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from where `state_dict` was taken, forgetting what was learned here.

        Raises:
            UserError: the arrays are not those of a state; nothing was forgotten.
        """
        try:
            arrays = [np.array(state[name], np.float64) for name in STATE]
            count, mean, scatter, eps, rows = arrays
            shapes = [(), (len(mean),), (len(mean), len(mean)), (), (len(rows), len(mean))]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("the saved state of the PCA is damaged: start anew, without it") from error
        if [array.shape for array in arrays] != shapes or len(rows) >= BLOCK:
            raise UserError("the saved state of the PCA has arrays that do not fit: start anew, without it")
        if count < 0 or count % 1 or eps < 0 or not all(np.isfinite(array).all() for array in arrays):
            raise UserError("the saved state of the PCA holds impossible values: start anew, without it")
        self._start(len(mean))
        self._count, self._mean, self._scatter, self._eps = int(count), mean, scatter, float(eps)
        self._rows[: len(rows)], self._filled = rows, len(rows)

    def whitened_components(self, n_components: int | None = None) -> np.ndarray:
        """The first components, each divided by the square root of its variance: (n_components, C) float64.

        Raises:
            UserError: the data carry fewer than were asked for (by default those of the estimator).
        """
        _, components, variances = self._solve()
        wanted = n_components or self.n_components or self._width
        if wanted > self.rank_:
            seen = f"{self.n_samples_seen_} vectors of {self._width} dimensions"
            advice = f"--components {self.rank_}" if self.rank_ else "learn from more images"
            raise UserError(f"the data carry {self.rank_} components (from {seen}), not {wanted}: {advice}")
        return components[:wanted] / np.sqrt(variances[:wanted, None])

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Projects (n, C) vectors to (n, D) float64; raises what `whitened_components` does if it whitens."""
        components = self.whitened_components() if self.whiten else self.components_
        vectors = _checked(X)
        self._agree_on(vectors.shape[1])
        return (vectors - self.mean_) @ components.T

    @property
    def components_(self) -> np.ndarray:
        """(D, C) orthonormal rows by falling variance, the entry of largest magnitude of each positive."""
        return self._solve().components[: self.n_components_]

    @property
    def explained_variance_(self) -> np.ndarray:
        """(D,) variances over n - 1."""
        return self._solve().variances[: self.n_components_]

    @property
    def explained_variance_ratio_(self) -> np.ndarray:
        """(D,) shares of the variance of all C directions; zeros where nothing varies."""
        return self.explained_variance_ / (self._solve().variances.sum() or 1.0)

    @property
    def mean_(self) -> np.ndarray:
        """(C,)."""
        return self._solve().mean

    @property
    def rank_(self) -> int:
        """How many directions the data carry, at most min(n - 1, C)."""
        return int(np.count_nonzero(self._solve().variances))

    @property
    def n_components_(self) -> int:
        """D, at most C."""
        return min(self.n_components or self._width, self._width)

    @property
    def n_samples_seen_(self) -> int:
        """How many vectors there were, n."""
        return self._count + self._filled

    @property
    def _width(self) -> int:
        """C; 0 as long as it is not known."""
        return len(self._mean)

    def _start(self, width: int) -> None:
        self._count, self._mean, self._scatter = 0, np.zeros(width), np.zeros((width, width))
        self._eps = 0.0  # of the coarsest type that vectors came in
        self._rows, self._filled = np.empty((BLOCK, width)), 0
        self._solution = None

    def _agree_on(self, width: int) -> None:
        if not self._width:
            self._start(width)
        elif width != self._width:
            raise ValueError(f"vectors of {width} dimensions came where there were {self._width} before")

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Adds vectors by their moments (Chan et al., 1983)."""
        if count:
            total = self._count + count
            step = mean - self._mean
            root = step * np.sqrt(self._count / total * count)
            self._scatter += scatter
            self._scatter += np.outer(root, root)
            self._mean += step * (count / total)
            self._count = total

    def _flush(self) -> None:
        """Adds the vectors that wait."""
        if self._filled:
            rows, self._filled = self._rows[: self._filled], 0
            # Less one of them first: then the mean of equal values is that value, with no rounding.
            first = rows[0].copy()
            rows -= first
            mean = rows.mean(axis=0)
            rows -= mean
            self._add(len(rows), first + mean, rows.T @ rows)

    def _flushed(self) -> "StreamingPCA":
        whole = deepcopy(self)
        whole._flush()
        return whole

    def _solve(self) -> _Solution:
        if self._solution is None:
            if self.n_samples_seen_ < 2:
                raise UserError(f"a PCA needs 2 vectors or more, not {self.n_samples_seen_}: use more images")
            whole = self._flushed()
            variances, vectors = np.linalg.eigh(whole._scatter / (whole._count - 1))
            variances, components = variances[::-1], vectors.T[::-1]
            squares = whole._scatter.diagonal() / whole._count + whole._mean**2
            float64_noise = np.finfo(np.float64).eps * max(self._width, min(whole._count, BLOCK))
            noise = np.maximum(variances[0] * float64_noise, whole._eps**2 * (components**2 @ squares))
            real = (variances > noise) & (np.arange(self._width) < whole._count - 1)
            order = np.argsort(~real, kind="stable")
            components = components[order]
            peaks = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
            variances = np.where(real, variances, 0.0)[order]
            self._solution = _Solution(whole._mean, components * np.sign(peaks), variances)
        return self._solution


def _checked(X: ArrayLike) -> np.ndarray:
    vectors = np.asarray(X)
    if vectors.dtype.kind == "c":
        raise ValueError("vectors must be real, not complex")
    if vectors.dtype.kind != "f":
        vectors = vectors.astype(np.float64)
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise ValueError(f"vectors must be (n, C), not {vectors.shape}")
    for start in range(0, len(vectors), BLOCK):
        finite = np.isfinite(vectors[start : start + BLOCK]).all(axis=1)
        if not finite.all():
            raise UserError(f"vector {start + finite.argmin()} has a nan or an infinity: leave its image out")
    return vectors
