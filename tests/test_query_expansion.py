import numpy as np
import pytest

from utils.search.query_expansion import expand_queries
from utils.search.similarity import compute_similarities, first_indices


def test_average_expansion_is_the_direction_of_the_mean_of_query_and_first_images():
    queries = np.array([[1, 0, 0]], np.float32)
    database = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)
    expanded = expand_queries(queries, database, np.array([[2, 0]]))
    # (1, 0, 0) + (1, 0, 0) + (0, 1, 0) = (2, 1, 0)
    np.testing.assert_allclose(expanded, [[2 / 5**0.5, 1 / 5**0.5, 0]], rtol=1e-6)
    assert expanded.dtype == np.float32


def test_expansion_takes_all_images_where_there_are_fewer():
    queries, database = np.eye(1, 2), np.array([[0.0, 1.0]])
    first = first_indices(compute_similarities(queries, database), 5)
    assert first.tolist() == [[0]]
    expanded = expand_queries(queries, database, first)
    np.testing.assert_allclose(expanded, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_without_alpha_every_image_counts_alike_to_the_last_bit(dtype):
    # Half of the similarities are negative. Their weight is 0 to the power of 0, which is 1.
    rng = np.random.default_rng(0)
    queries, database = (rng.standard_normal((rows, 33)).astype(dtype) for rows in (7, 40))
    first = rng.integers(0, 40, (7, 11))
    total = queries + database[first].sum(axis=1)
    plain = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
    assert (expand_queries(queries, database, first) == plain).all()
    assert (expand_queries(queries, database, first, alpha=0) == plain).all()


def test_with_alpha_an_image_counts_its_similarity_to_that_power():
    queries = np.array([[1, 0, 0]], np.float32)
    database = np.array([[0.5, 1, 0], [-0.5, 0, 7]], np.float32)
    expanded = expand_queries(queries, database, np.array([[0, 1]]), alpha=3)
    # (1, 0, 0) + 0.5³ (0.5, 1, 0), without the image of negative similarity: (17, 2, 0) / 16
    np.testing.assert_allclose(expanded, [[17 / 293**0.5, 2 / 293**0.5, 0]], rtol=1e-6)
    assert expanded.dtype == np.float32


def test_the_first_images_of_each_query_are_weighted_separately():
    rng = np.random.default_rng(1)
    queries, database = rng.standard_normal((4, 8)), rng.standard_normal((30, 8))
    first = first_indices(compute_similarities(queries, database), 6)
    for query, indices, expanded in zip(
        queries, first, expand_queries(queries, database, first, 1.5), strict=True
    ):
        total = query.copy()
        for index in indices:
            total += max(0.0, float(query @ database[index])) ** 1.5 * database[index]
        np.testing.assert_allclose(expanded, total / np.linalg.norm(total), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0, 3])
def test_a_query_of_zeros_among_zeros_stays_zero(alpha):
    expanded = expand_queries(
        np.zeros((1, 3), np.float32), np.zeros((2, 3), np.float32), np.array([[0, 1]]), alpha
    )
    assert expanded.tolist() == [[0, 0, 0]]


def test_the_database_is_asked_for_nothing_but_the_first_images():
    class Store:
        def __getitem__(self, indices):
            return np.eye(3, dtype=np.float32)[indices]

    queries, first = np.array([[1, 0, 0]], np.float32), np.array([[0, 2]])
    expanded = expand_queries(queries, Store(), first, alpha=1)  # e1 + 1 e1 + 0 e3
    assert expanded.tolist() == [[1, 0, 0]]


def test_images_that_were_not_retrieved_have_no_weight():
    rng = np.random.default_rng(8)
    queries, database = rng.standard_normal((2, 5)), rng.standard_normal((7, 5))
    first = np.array([[3, 0, 1], [2, 6, 0]])
    retrieved = np.array([[True, False, False], [True, True, False]])
    expanded = expand_queries(queries, database, first, retrieved=retrieved)
    sums = np.stack([queries[0] + database[3], queries[1] + database[2] + database[6]])
    np.testing.assert_allclose(expanded, sums / np.linalg.norm(sums, axis=1, keepdims=True), rtol=1e-6)
