import numpy as np
import pytest
import scipy.stats

from utils.scoring.bootstrap import paired_bootstrap


def test_interval_is_scipys_of_the_differences():
    rng = np.random.default_rng(0)
    first = rng.random(55)
    second = first + 0.05 + 0.1 * rng.standard_normal(55)
    actual = paired_bootstrap(first, second)
    expected = scipy.stats.bootstrap(
        (second - first,), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    assert actual.mean == pytest.approx(np.mean(second - first))
    assert actual.low == pytest.approx(expected.low, abs=1e-3)
    assert actual.high == pytest.approx(expected.high, abs=1e-3)


def test_an_equal_difference_of_all_queries_has_an_interval_of_length_0():
    first = np.linspace(0, 0.9, 10)
    actual = paired_bootstrap(first, first + 0.1)
    assert actual == pytest.approx((0.1, 0.1, 0.1))


def test_undefined_scores_are_left_out():
    nan = float("nan")
    assert paired_bootstrap([nan, 0.5, 0.1], [0.3, 0.7, nan]) == pytest.approx((0.2, 0.2, 0.2))
    assert np.isnan(paired_bootstrap([nan], [0.3])).all()


def test_the_same_seed_draws_the_same_queries():
    first, second = np.random.default_rng(0).random((2, 30))
    assert paired_bootstrap(first, second, seed=3) == paired_bootstrap(first, second, seed=3)
    assert paired_bootstrap(first, second, seed=3) != paired_bootstrap(first, second, seed=4)
