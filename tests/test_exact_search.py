import threading

import numpy as np
import pytest
import torch

from utils.descriptors.rows import StoredRows
from utils.errors import UserError
from utils.search import block_products, candidates, labelled_rows
from utils.search.block_products import multiply_slices
from utils.search.exact import rounding_error_bound, search_rows, top_rows


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def count_ranks(queries, database, labelled):
    return search_rows(queries, database, 0, labelled).ranks


def by_sorting(queries, database, count):
    """Return the first results by a stable sort of all similarities in float64, rounded to float32."""
    similar = (queries.astype(np.float64) @ database.astype(np.float64).T).astype(np.float32)
    indices = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    return indices, np.take_along_axis(similar, indices, axis=1)


@pytest.mark.parametrize("count", [1, 7, 64, 1000])
@pytest.mark.parametrize("block", [16, 4096])
def test_equals_a_sort_of_all_similarities(monkeypatch, count, block):
    monkeypatch.setattr(block_products, "CACHED_ROWS", 5)
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", block)
    rng = np.random.default_rng(count)
    database, queries = unit(rng.standard_normal((300, 32))), unit(rng.standard_normal((5, 32)))
    indices, similar = top_rows(queries, database, count)
    expected_indices, expected = by_sorting(queries, database, count)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(similar, expected)


@pytest.mark.parametrize("pairs", [8, 1024])
@pytest.mark.parametrize("distinct", [1, 3, 40])
def test_equal_images_come_in_the_databases_order(monkeypatch, distinct, pairs):
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 32)
    monkeypatch.setattr(block_products, "PAIRS", pairs)
    monkeypatch.setattr(candidates, "SPARE", pairs)
    rng = np.random.default_rng(distinct)
    database = unit(rng.standard_normal((distinct, 64)))[rng.integers(0, distinct, 200)]
    queries = unit(rng.standard_normal((3, 64)))
    for count in (1, 10, 150):
        np.testing.assert_array_equal(
            top_rows(queries, database, count)[0], by_sorting(queries, database, count)[0]
        )


def test_similarities_closer_than_float32_rounding_are_ranked_as_by_a_sort():
    rng = np.random.default_rng(0)
    base = unit(rng.standard_normal((1, 2048)))
    database = unit(base + 1e-7 * rng.standard_normal((500, 2048)))
    np.testing.assert_array_equal(top_rows(base, database, 20)[0], by_sorting(base, database, 20)[0])


def test_many_nearly_equal_rows_are_ranked_block_by_block(monkeypatch):
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 50)
    monkeypatch.setattr(candidates, "SPARE", 16)
    rng = np.random.default_rng(3)
    base = unit(rng.standard_normal((4, 512)))
    database = unit(base[rng.integers(0, 4, 600)] + 1e-6 * rng.standard_normal((600, 512)))
    for count in (1, 30, 170):  # about 150 rows around each
        indices, similar = top_rows(base, database, count)
        expected_indices, expected = by_sorting(base, database, count)
        np.testing.assert_array_equal(indices, expected_indices)
        np.testing.assert_array_equal(similar, expected)


def test_no_float32_dot_product_is_further_off_than_the_rounding():
    rng = np.random.default_rng(4)
    for width in (8, 512, 2048):
        # Products of one sign have the largest rounding error.
        left, right = np.abs(unit(rng.standard_normal((2, width))))
        total = np.float32(0)
        for start in range(0, width, 256):  # the slices of multiply_slices, each summed term by term
            one_by_one = np.float32(0)
            for product in (left * right)[start : start + 256]:
                one_by_one = np.float32(one_by_one + product)
            total = np.float32(total + one_by_one)
        exact = left.astype(np.float64) @ right.astype(np.float64)
        assert 0 < abs(total - exact) < rounding_error_bound(width) < 1.7e-5


@pytest.mark.parametrize("width", [1, 255, 256, 257, 1280])
def test_the_sum_of_slices_is_the_product(width):
    rng = np.random.default_rng(5)
    queries, rows = unit(rng.standard_normal((3, width))), unit(rng.standard_normal((7, width)))
    output = torch.full((3, 7), torch.nan)
    multiply_slices(torch.from_numpy(queries).float(), torch.from_numpy(rows).float(), output)
    exact = queries.astype(np.float64) @ rows.T.astype(np.float64)
    assert np.abs(output.numpy() - exact).max() < rounding_error_bound(width)


def test_is_the_same_in_inference_mode(monkeypatch):
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 4)
    database = np.eye(64, dtype=np.float32)
    with torch.inference_mode():
        indices, similarities = top_rows(database[[5, 60]], database, 2)
    assert indices.tolist() == [[5, 0], [60, 0]]
    assert similarities.tolist() == [[1, 0], [1, 0]]


def test_torch_has_as_many_threads_after_a_search_as_before():
    def count_in_new_thread():
        thread = threading.Thread(target=lambda: thread_counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()

    thread_counts, before = [], torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        indices, _ = top_rows(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), 1)
        assert indices.ravel().tolist() == [0, 1, 2]
        count_in_new_thread()
        assert [*thread_counts, torch.get_num_threads()] == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_a_database_on_disk_in_any_order_is_searched_alike():
    rng = np.random.default_rng(1)
    rows = unit(rng.standard_normal((90, 16))).astype(np.float16)
    numbers = rng.permutation(90)[:70]
    database = StoredRows([rows[:20], rows[20:21], rows[21:]], numbers)
    queries = unit(rng.standard_normal((4, 16)))
    indices, similar = top_rows(queries, database, 9)
    expected_indices, expected = by_sorting(queries, rows[numbers], 9)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(similar, expected)


def test_an_empty_database_or_no_queries_give_empty_results():
    queries, database = np.ones((2, 3), np.float32), np.empty((0, 3), np.float32)
    assert [array.shape for array in top_rows(queries, database, 5)] == [(2, 0), (2, 0)]
    assert [array.shape for array in top_rows(queries[:0], queries, 1)] == [(0, 1), (0, 1)]


def test_images_opposite_to_the_query_are_returned_if_there_are_no_others():
    indices, similar = top_rows(np.array([[1, 0]], np.float32), np.array([[-1, 0], [0, -1]], np.float32), 2)
    assert indices.tolist() == [[1, 0]]
    assert similar.tolist() == [[0.0, -1.0]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("stored", [False, True])
def test_a_value_that_is_not_finite_is_named_by_its_row(monkeypatch, value, stored):
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 16)
    rng = np.random.default_rng(0)
    database, queries = unit(rng.standard_normal((50, 8))), unit(rng.standard_normal((4, 8)))
    changed, changed_queries = database.copy(), queries.copy()
    changed[37, 2] = changed_queries[2, 5] = value
    rows = StoredRows([changed[::-1].copy()], np.arange(50)[::-1].copy()) if stored else changed
    with pytest.raises(UserError, match="row 37 contains NaN or infinity"):
        top_rows(queries, rows, 3)
    with pytest.raises(UserError, match="query 2 contains NaN or infinity"):
        top_rows(changed_queries, database, 3)


@pytest.mark.parametrize("database", [np.empty((0, 8), np.float32), StoredRows([], np.empty(0, np.int64))])
def test_an_empty_database_has_no_neighbours(database):
    indices, similar = top_rows(unit(np.ones((3, 8))), database, 5)
    assert indices.shape == similar.shape == (3, 0)


def ranks_by_sorting(queries, database, labelled):
    """Return the ranks of rows by a stable sort of all similarities in float64, rounded to float32."""
    order, _ = by_sorting(queries, database, len(database))
    return [np.argsort(row)[indices].tolist() for row, indices in zip(order, labelled, strict=True)]


@pytest.mark.parametrize("share", [0, 1])
@pytest.mark.parametrize("kind", ["spread", "few distinct", "nearly equal"])
@pytest.mark.parametrize("width", [2, 32, 512])
def test_ranks_by_counting_equal_ranks_by_sorting(monkeypatch, kind, width, share):
    monkeypatch.setattr(labelled_rows, "LARGEST_SHARE", share)  # at 0, float64 products decide
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 64)
    rng = np.random.default_rng(width)
    database = unit(rng.standard_normal((300 if kind == "spread" else 7, width)))
    if kind != "spread":
        database = database[rng.integers(0, 7, 300)]
    if kind == "nearly equal":
        database = unit(database + 1e-7 * rng.standard_normal(database.shape))
    queries = unit(rng.standard_normal((6, width)))
    labelled = [rng.permutation(300)[:count] for count in (0, 1, 5, 60, 300, 0)]
    expected = ranks_by_sorting(queries, database, labelled)
    assert [ranks.tolist() for ranks in count_ranks(queries, database, labelled)] == expected
    found = search_rows(queries, database, 9, labelled)
    assert [ranks.tolist() for ranks in found.ranks] == expected
    np.testing.assert_array_equal(found.indices, by_sorting(queries, database, 9)[0])


def test_ranks_in_a_database_on_disk_in_any_order_are_counted_alike():
    rng = np.random.default_rng(5)
    rows = unit(rng.standard_normal((90, 16))).astype(np.float16)
    numbers = rng.permutation(90)[:70]
    database = StoredRows([rows[:20], rows[20:21], rows[21:]], numbers)
    queries, labelled = unit(rng.standard_normal((2, 16))), [np.arange(70), np.array([3, 3, 1])]
    expected = ranks_by_sorting(queries, rows[numbers], labelled)
    assert [ranks.tolist() for ranks in count_ranks(queries, database, labelled)] == expected


def test_ranks_where_there_are_no_queries_or_no_labels():
    queries = database = unit(np.ones((2, 3)))
    assert count_ranks(queries[:0], database, []) == []
    nothing = np.empty(0, np.int64)
    assert [ranks.shape for ranks in count_ranks(queries, database, [nothing, nothing])] == [(0,), (0,)]
    empty = np.empty((0, 3), np.float32)
    assert [ranks.shape for ranks in count_ranks(queries, empty, [nothing, nothing])] == [(0,), (0,)]
