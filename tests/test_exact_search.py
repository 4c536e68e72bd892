import threading

import numpy as np
import pytest
import torch

from utils.descriptors.rows import StoredRows
from utils.errors import UserError
from utils.search import exact as module
from utils.search.exact import exact_search


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_sorting(queries, database, count):
    """The whole matrix in float64, rounded, and a stable sort: ties in the database's order."""
    similar = (queries.astype(np.float64) @ database.astype(np.float64).T).astype(np.float32)
    places = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(similar, places, axis=1)


@pytest.mark.parametrize("count", [1, 7, 64, 1000])
@pytest.mark.parametrize("block", [16, 4096])
def test_equals_a_sort_of_all_similarities(monkeypatch, count, block):
    monkeypatch.setattr(module, "CACHED_ROWS", 5)
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", block)
    rng = np.random.default_rng(count)
    database, queries = unit(rng.standard_normal((300, 32))), unit(rng.standard_normal((5, 32)))
    places, similar = exact_search(queries, database, count)
    expected_places, expected = by_sorting(queries, database, count)
    np.testing.assert_array_equal(places, expected_places)
    np.testing.assert_array_equal(similar, expected)


@pytest.mark.parametrize("pairs", [8, 1024])
@pytest.mark.parametrize("distinct", [1, 3, 40])
def test_equal_images_come_in_the_databases_order(monkeypatch, distinct, pairs):
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 32)
    monkeypatch.setattr(module, "RECOMPUTED_PAIRS", pairs)
    rng = np.random.default_rng(distinct)
    database = unit(rng.standard_normal((distinct, 64)))[rng.integers(0, distinct, 200)]
    queries = unit(rng.standard_normal((3, 64)))
    for count in (1, 10, 150):
        np.testing.assert_array_equal(
            exact_search(queries, database, count)[0], by_sorting(queries, database, count)[0]
        )


def test_similarities_closer_than_float32_rounding_are_told_apart_as_a_sort_does():
    rng = np.random.default_rng(0)
    base = unit(rng.standard_normal((1, 2048)))
    database = unit(base + 1e-7 * rng.standard_normal((500, 2048)))
    np.testing.assert_array_equal(exact_search(base, database, 20)[0], by_sorting(base, database, 20)[0])


def test_many_that_are_all_but_equal_are_told_apart_block_by_block(monkeypatch):
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 50)
    monkeypatch.setattr(module, "RECOMPUTED_PAIRS", 16)
    rng = np.random.default_rng(3)
    base = unit(rng.standard_normal((4, 512)))
    database = unit(base[rng.integers(0, 4, 600)] + 1e-6 * rng.standard_normal((600, 512)))
    for count in (1, 30, 170):  # there are some 150 around each
        places, similar = exact_search(base, database, count)
        expected_places, expected = by_sorting(base, database, count)
        np.testing.assert_array_equal(places, expected_places)
        np.testing.assert_array_equal(similar, expected)


def test_no_float32_dot_product_is_further_off_than_the_rounding():
    rng = np.random.default_rng(4)
    for width in (8, 512, 2048):
        left, right = np.abs(unit(rng.standard_normal((2, width))))  # of one sign, where sums go most astray
        one_by_one = np.float32(0)
        for product in left * right:
            one_by_one = np.float32(one_by_one + product)
        exact = left.astype(np.float64) @ right.astype(np.float64)
        assert 0 < abs(one_by_one - exact) < module.rounding_error_bound(width) < 2e-4


def test_torch_has_as_many_threads_after_a_search_as_before():
    def of_a_new_thread():
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()

    found, before = [], torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        exact_search(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), 1)
        of_a_new_thread()
        assert [*found, torch.get_num_threads()] == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_a_database_on_disk_in_any_order_is_searched_alike():
    rng = np.random.default_rng(1)
    rows = unit(rng.standard_normal((90, 16))).astype(np.float16)
    numbers = rng.permutation(90)[:70]
    database = StoredRows([rows[:20], rows[20:21], rows[21:]], numbers)
    queries = unit(rng.standard_normal((4, 16)))
    places, similar = exact_search(queries, database, 9)
    expected_places, expected = by_sorting(queries, rows[numbers], 9)
    np.testing.assert_array_equal(places, expected_places)
    np.testing.assert_array_equal(similar, expected)


def test_nothing_to_search_or_to_find_is_found_empty():
    queries, database = np.ones((2, 3), np.float32), np.empty((0, 3), np.float32)
    assert [array.shape for array in exact_search(queries, database, 5)] == [(2, 0), (2, 0)]
    assert [array.shape for array in exact_search(queries[:0], queries, 1)] == [(0, 1), (0, 1)]


def test_images_opposite_to_the_query_are_found_when_there_are_no_others():
    places, similar = exact_search(
        np.array([[1, 0]], np.float32), np.array([[-1, 0], [0, -1]], np.float32), 2
    )
    assert places.tolist() == [[1, 0]]
    assert similar.tolist() == [[0.0, -1.0]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("stored", [False, True])
def test_a_value_that_is_not_finite_is_named_by_its_row(monkeypatch, value, stored):
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 16)
    rng = np.random.default_rng(0)
    database, queries = unit(rng.standard_normal((50, 8))), unit(rng.standard_normal((4, 8)))
    damaged, asked = database.copy(), queries.copy()
    damaged[37, 2] = asked[2, 5] = value
    rows = StoredRows([damaged[::-1].copy()], np.arange(50)[::-1].copy()) if stored else damaged
    with pytest.raises(UserError, match="row 37 contains NaN or infinity"):
        exact_search(queries, rows, 3)
    with pytest.raises(UserError, match="query 2 contains NaN or infinity"):
        exact_search(asked, database, 3)


@pytest.mark.parametrize("database", [np.empty((0, 8), np.float32), StoredRows([], np.empty(0, np.int64))])
def test_an_empty_database_has_no_neighbours(database):
    places, similar = exact_search(unit(np.ones((3, 8))), database, 5)
    assert places.shape == similar.shape == (3, 0)
