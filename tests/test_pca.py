import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from utils.errors import UserError
from utils.weights.networks import load_whitening
from utils.whitening.pca import BLOCK, StreamingPCA
from utils.whitening.report import write_files


def learned(X, *cuts):
    """Return a PCA to which vectors were added in parts, split at given rows."""
    X = np.asarray(X)
    pca = StreamingPCA(X.shape[1])
    for part in np.split(X, cuts):
        pca.add(part)
    return pca


def vectors(n, channels=12, mean=0.0, seed=0):
    """Return vectors of correlated channels, the last nearly the sum of the first two."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, channels)) * np.geomspace(2, 0.2, channels)
    mixed = mixed @ np.linalg.qr(rng.standard_normal((channels, channels)))[0]
    mixed[:, -1] = mixed[:, 0] + mixed[:, 1] + 1e-3 * rng.standard_normal(n)
    return mixed + mean * np.linspace(0.5, 1, channels)


def assert_same(ours, other, tolerance=1e-10):
    assert ours.count == other.count
    np.testing.assert_allclose(ours.mean, other.mean, rtol=tolerance)
    # Sums in another order change each eigenvalue by rounding of the largest one (Weyl's inequality).
    rounding = 16 * np.finfo(np.float64).eps * other.variances.max()
    np.testing.assert_allclose(ours.variances, other.variances, rtol=tolerance, atol=rounding)
    np.testing.assert_allclose(ours.components, other.components, atol=tolerance)


def assert_equal_to_the_bit(ours, other):
    assert ours.count == other.count
    for name in ("mean", "components", "variances"):
        assert getattr(ours, name).dtype == np.float64
        np.testing.assert_array_equal(getattr(ours, name), getattr(other, name))


def assert_equal_states(state, other):
    assert state.keys() == other.keys()
    for name in state:
        np.testing.assert_array_equal(state[name], other[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mean", "dtype"),
    [(0, np.float64), (1e4, np.float64), (1e6, np.float64), (3, np.float32)],
)
@pytest.mark.parametrize("n", [200, BLOCK + 900])
def test_components_and_variances_are_those_of_scikit_learn(n, mean, dtype):
    X = vectors(n, mean=mean).astype(dtype)
    ours = learned(X, 20, 60)
    oracle = PCA(svd_solver="full").fit(X.astype(np.float64))
    np.testing.assert_allclose(ours.mean, oracle.mean_, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.components, oracle.components_, atol=1e-5)
    np.testing.assert_allclose(ours.variances, oracle.explained_variance_, rtol=1e-6)
    assert ours.rank == oracle.n_components_ == 12


@pytest.mark.parametrize("components", [12, 5])
def test_the_whitening_of_the_files_is_that_of_scikit_learn(tmp_path, components):
    X, other = vectors(500, mean=10), vectors(40, mean=10, seed=1)
    pca = learned(X, 100)
    record = {"explained_variance": pca.variances.tolist()}
    write_files(tmp_path, pca.whitened_components(components), pca.mean, record)
    oracle = PCA(components, whiten=True, svd_solver="full").fit(X)
    # float32 is precise enough for all but the smallest variance, 1e-7.
    whitened = load_whitening(tmp_path, 12)(torch.from_numpy(other.astype(np.float32)))
    expected = oracle.transform(other)
    np.testing.assert_allclose(whitened[:, :11], expected[:, :11], rtol=1e-4, atol=1e-4)
    assert whitened.shape == (40, components)
    in_float64 = (other - pca.mean) @ pca.whitened_components(components).T
    np.testing.assert_allclose(in_float64, expected, rtol=1e-6, atol=1e-6)


def test_two_dimensions_by_hand():
    # About their mean (10, 20) the vectors are +-10 along (3, 4)/5 and +-5 along (4, -3)/5, so the scatter is
    # 2 * 10^2 = 200 along the first and 2 * 5^2 = 50 along the second, and n - 1 is 3.
    pca = learned([[16.0, 28], [4, 12], [14, 17], [6, 23]])
    np.testing.assert_allclose(pca.mean, [10, 20])
    np.testing.assert_allclose(pca.components, [[0.6, 0.8], [0.8, -0.6]])
    np.testing.assert_allclose(pca.variances, [200 / 3, 50 / 3])
    # Each component over the root of its variance: (0.6, 0.8) / sqrt(200 / 3) and (0.8, -0.6) / sqrt(50 / 3).
    expected = np.array([[0.6 * 0.015**0.5, 0.8 * 0.015**0.5], [0.8 * 0.06**0.5, -0.6 * 0.06**0.5]])
    np.testing.assert_allclose(pca.whitened_components(2), expected)
    np.testing.assert_allclose(pca.whitened_components(1), expected[:1])


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_element_of_a_component_is_positive(sign):
    X = sign * np.array([[0.0, 0, 0], [1, -2, 1.5]])
    expected = [-1 / 7.25**0.5, 2 / 7.25**0.5, -1.5 / 7.25**0.5]  # 1 + 4 + 2.25 = 7.25
    np.testing.assert_allclose(learned(X).components[0], expected)


def test_one_vector_at_a_time_equals_all_at_once():
    X = vectors(2 * BLOCK + 10, channels=3)
    assert_equal_to_the_bit(learned(X, *range(1, len(X))), learned(X))


def test_results_follow_the_vectors_that_come_later():
    X = vectors(700)
    pca = learned(X[:300])
    first = pca.components
    pca.add(X[300:])
    assert_equal_to_the_bit(pca, learned(X))
    assert abs(pca.components - first).max() > 1e-6


@pytest.mark.parametrize("cuts", [[1], [650], [0, 300, 301], [BLOCK], [BLOCK + 5, 2 * BLOCK + 3]])
@pytest.mark.parametrize("mean", [0, 1e4])
def test_merged_parts_equal_the_pca_of_all_vectors(cuts, mean):
    X = vectors(2 * BLOCK + 400, mean=mean)
    X = X[np.argsort(X[:, 0])]  # so that the means of the parts are far apart
    merged = StreamingPCA(12)
    for part in np.split(X, cuts):
        merged.merge(learned(part))
    assert_same(merged, learned(X), 1e-8)
    np.testing.assert_allclose(np.cov(X.T), reconstructed(merged), rtol=0, atol=1e-10)


def reconstructed(pca):
    return pca.components.T * pca.variances @ pca.components


def test_merging_adds_to_what_waits_and_leaves_the_other_alone():
    X = vectors(1000)
    pca, other = learned(X[:10]), learned(X[500:])
    before = other.state_dict()
    assert pca.rank == 9  # computed now, and again after the merge
    pca.merge(other)
    assert_same(pca, learned(np.vstack([X[:10], X[500:]])), 1e-9)
    assert_equal_states(other.state_dict(), before)
    pca.merge(StreamingPCA(12))
    pca.add(X[10:500])
    assert_same(pca, learned(X), 1e-9)


@pytest.mark.parametrize("counts", [[700], [0, 10, BLOCK + 300], [1, 1, 1, 60]])
@pytest.mark.parametrize("mean", [0, 1e6])
def test_processes_that_sum_up_have_the_pca_of_all_vectors(counts, mean):
    X = vectors(sum(counts), channels=5, mean=mean)
    barrier, given = threading.Barrier(len(counts)), [None] * len(counts)

    def summed(index, part):
        def add_up(array):
            given[index] = array.copy()
            barrier.wait(10)
            total = np.sum(given, axis=0)
            barrier.wait(10)
            return total

        pca = learned(part)
        pca.sum_processes(add_up)
        return pca

    with ThreadPoolExecutor(len(counts)) as pool:
        for pca in pool.map(summed, range(len(counts)), np.split(X, np.cumsum(counts)[:-1])):
            assert_same(pca, learned(X), 1e-7)


def test_merged_float32_vectors_keep_their_rounding_noise():
    merged = StreamingPCA(3)
    merged.merge(learned(sum_of_rounded(np.float32, 0)))
    assert merged.rank == 2


@pytest.mark.parametrize("saved_after", [0, 1, 700, BLOCK, BLOCK + 700])
def test_resuming_from_a_file_equals_going_on(tmp_path, saved_after):
    X = vectors(2 * BLOCK + 50, mean=100).astype(np.float32)
    np.savez(tmp_path / "state.npz", **learned(X[:saved_after]).state_dict())
    resumed = learned(vectors(60))
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        resumed.load_state_dict(state)
    assert resumed.count == saved_after
    resumed.add(X[saved_after:])
    assert_equal_to_the_bit(resumed, learned(X))
    assert_equal_states(resumed.state_dict(), learned(X).state_dict())


def test_reading_results_changes_nothing():
    X = vectors(BLOCK + 2000)
    read = StreamingPCA(12)
    for part in np.split(X, [100, 700, BLOCK + 3]):
        read.add(part)
        read.whitened_components(2)
        read.state_dict()["mean"] += 1
        StreamingPCA(12).merge(read)
    assert_equal_to_the_bit(read, learned(X))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scatter", np.zeros((12, 11))),
        ("mean", np.zeros((12, 1))),
        ("mean", np.zeros(11)),
        ("mean", np.float64(0)),
        ("rows", np.zeros((3, 11))),
        ("rows", np.zeros((BLOCK, 12))),
        ("count", np.zeros(2)),
        ("eps", np.array("half")),
        ("rows", None),
    ],
)
def test_an_invalid_state_is_refused_and_not_loaded(name, value):
    pca = learned(vectors(70))
    before = pca.state_dict()
    state = learned(vectors(90)).state_dict()
    if value is None:
        del state[name]
    else:
        state[name] = value
    with pytest.raises(UserError, match="saved state of the PCA"):
        pca.load_state_dict(state)
    assert_equal_states(pca.state_dict(), before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dead_channels_have_no_variance_and_no_weight(dtype):
    X = vectors(BLOCK + 500, channels=6).astype(dtype)
    X[:, 1], X[:, 4] = 0.1, 0  # sums of many 0.1 are rounded
    pca = learned(X)
    assert pca.rank == 4
    assert (pca.variances[:4] > 0).all()
    assert pca.variances[4:].tolist() == [0, 0]
    np.testing.assert_allclose(pca.whitened_components(4)[:, [1, 4]], 0, atol=1e-12)
    assert not pca.state_dict()["scatter"][[1, 4]].any()
    assert pca.mean[[1, 4]].tolist() == [dtype(0.1), 0]
    with pytest.raises(UserError, match=r"have only 4 components .* not 6: --components 4"):
        pca.whitened_components(6)


def test_fewer_vectors_than_channels():
    X = vectors(5, channels=8)
    pca = learned(X)
    assert pca.rank == 4
    assert pca.variances[4:].tolist() == [0] * 4
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(8), atol=1e-12)
    np.testing.assert_allclose((X - pca.mean) @ pca.components[4:].T, 0, atol=1e-12)
    message = r"the data have only 4 components \(from 5 vectors of 8 dimensions\), not 8: --components 4$"
    with pytest.raises(UserError, match=message):
        pca.whitened_components(8)
    oracle = PCA(4, whiten=True, svd_solver="full").fit(X)
    whitened = (X - pca.mean) @ pca.whitened_components(4).T
    np.testing.assert_allclose(whitened, oracle.transform(X), atol=1e-6)


def sum_of_rounded(dtype, signal):
    """Return two channels around 1000 and 2000, and their sum plus a random signal, rounded to float32."""
    rng = np.random.default_rng(0)
    a, b = rng.normal([[1000], [2000]], 1, (2, 6000)).astype(np.float32)
    total = (a.astype(np.float64) + b + signal * rng.standard_normal(6000)).astype(np.float32)
    return np.stack([a, b, total], 1).astype(dtype)


def test_rounding_to_float32_is_no_direction_of_the_data():
    # Around 3000, float32 numbers are 2.4e-4 apart. As float64, the same rounded values are data.
    assert learned(sum_of_rounded(np.float32, 0)).rank == 2
    assert learned(sum_of_rounded(np.float64, 0)).rank == 3
    assert learned(sum_of_rounded(np.float32, 2e-3)).rank == 3


def test_rounding_noise_comes_after_all_real_directions():
    # The third channel is the first times 3, rounded to quarters: noise of more variance than the second.
    rng = np.random.default_rng(0)
    large = (1e6 + 10 * rng.standard_normal(6000)).astype(np.float32)
    small = (1e-2 * rng.standard_normal(6000)).astype(np.float32)
    pca = learned(np.stack([large, small, large * np.float32(3)], 1))
    assert pca.rank == 2
    np.testing.assert_allclose(pca.components[0], [0.1**0.5, 0, 0.9**0.5], atol=1e-3)
    np.testing.assert_allclose(pca.components[1], [0, 1, 0], atol=1e-3)
    np.testing.assert_allclose(pca.variances[1], small.var(ddof=1, dtype=np.float64), rtol=1e-3)
    assert pca.variances[2] == 0


def test_copies_of_a_channel_are_one_direction():
    X = vectors(6000, channels=4, mean=7)
    assert learned(X[:, [0, 1, 2, 0, 0]]).rank == 3


@pytest.mark.parametrize("seed", [56, 86])  # for these, a thousand roundings exceed two machine epsilons
def test_a_channel_and_its_multiple_are_one_direction_however_many_parts_are_merged(seed):
    channel = np.random.default_rng(seed).normal(3, 10, 3000)
    merged = StreamingPCA(2)
    for part in np.split(np.stack([channel, 3 * channel], 1), 1000):
        merged.merge(learned(part))
    assert merged.count == 3000
    assert merged.rank == 1


def test_the_rank_is_less_than_the_number_of_vectors():
    pca = learned(vectors(50, channels=4))
    assert pca.rank == 4
    pca.load_state_dict(
        {**pca.state_dict(), "count": np.array(3), "scatter": np.eye(4), "rows": np.empty((0, 4))}
    )
    assert pca.rank == 2


def test_the_same_vector_again_and_again():
    pca = learned(np.tile(np.float32([0.1, 0.3, 7]), (10, 1)))
    assert pca.rank == 0
    assert pca.variances.tolist() == [0, 0, 0]
    with pytest.raises(UserError, match=r"have only 0 components .* more images"):
        pca.whitened_components(1)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_vectors(count):
    pca = learned(np.ones((count, 3)))
    assert pca.count == count
    for read in (lambda: pca.mean, lambda: pca.components, lambda: pca.whitened_components(1)):
        with pytest.raises(UserError, match=f"needs 2 vectors or more, not {count}"):
            read()


def test_an_image_without_vectors_adds_none():
    X = vectors(30)
    assert_equal_to_the_bit(learned(X, 0, 30), learned(X))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_and_not_added(value):
    pca = learned(vectors(100))
    before = pca.state_dict()
    X = vectors(BLOCK + 9)
    X[BLOCK + 7, 3] = value
    with pytest.raises(UserError, match=f"vector {BLOCK + 7} has a nan or an infinity"):
        pca.add(X)
    assert_equal_states(pca.state_dict(), before)


@pytest.mark.parametrize("shape", [(), (5, 11), (5, 1), (12,), (1, 5, 12), (5, 0)])
def test_what_is_not_as_wide_is_refused_and_not_added(shape):
    pca = learned(vectors(100))
    before = pca.state_dict()
    with pytest.raises(ValueError, match=r"must be \(n, 12\)"):
        pca.add(np.ones(shape))
    assert_equal_states(pca.state_dict(), before)


def test_memory_does_not_grow_with_the_vectors():
    X = np.ones((10 * BLOCK, 64), np.float32) * np.arange(64, dtype=np.float32)
    tracemalloc.start()
    pca = learned(X[: BLOCK + 1])
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    pca.add(X)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pca.count == 11 * BLOCK + 1
    assert before > BLOCK * 64 * 8
    assert abs(after - before) < 10_000
    assert peak - before < BLOCK * 64 * 8
