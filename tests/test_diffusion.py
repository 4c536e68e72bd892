import numpy as np
import pytest
from helpers import unit

from utils.search.diffusion import (
    ALPHA,
    GAMMA,
    QUERY_NEIGHBOURS,
    diffuse,
    negative_ranks,
    neighbour_graph,
)
from utils.search.similarity import compute_similarities, rank

HALF = 0.5
"""Cosine of neighbours in the chain below. Its cube, their affinity, is 1/8."""


def random_rows(count, dimensions, seed):
    """Return random unit vectors, with about as many negative as positive similarities."""
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions))).astype(np.float32)


def dense_graph(database, k):
    """Return the matrix S in full, computed element by element."""
    products = np.float32(database.astype(np.float64) @ database.T.astype(np.float64))
    count = len(database)
    near = [
        sorted((j for j in range(count) if j != i), key=lambda j, i=i: (-products[i, j], j))[:k]
        for i in range(count)
    ]
    affinity = np.zeros((count, count))
    for i in range(count):
        for j in near[i]:
            if i in near[j]:
                affinity[i, j] = max(0.0, float(products[i, j])) ** 3
    degree = affinity.sum(axis=1)
    return np.array(
        [
            [a / np.sqrt(degree[i] * degree[j]) if a else 0 for j, a in enumerate(row)]
            for i, row in enumerate(affinity)
        ]
    )


def dense_scores(graph, similar, neighbours, alpha):
    """Return the solution of the full linear system, by elimination."""
    start = np.zeros(similar.shape)
    for row, y in zip(similar, start, strict=True):
        for index in sorted(range(len(row)), key=lambda p, row=row: (-row[p], p))[:neighbours]:
            y[index] = max(0.0, float(row[index])) ** 3
    return np.linalg.solve(np.eye(len(graph)) - alpha * graph, start.T).T


def test_constants_are_those_of_the_paper():
    assert (GAMMA, ALPHA) == (3, 0.99)


@pytest.mark.parametrize("k", [0, 1, 4, 20, 39, 60])
def test_the_graph_joins_mutual_neighbours_with_a_positive_similarity(k):
    database = random_rows(40, 5, 0)
    graph = neighbour_graph(database, k)
    np.testing.assert_allclose(graph.toarray(), dense_graph(database, k), rtol=1e-6)
    np.testing.assert_allclose(graph.toarray(), graph.T.toarray(), rtol=1e-12)
    assert (graph.data > 0).all()
    assert (graph.format, graph.dtype) == ("csr", np.float64)


def test_one_sided_neighbours_are_not_joined():
    # Images 0 and 1 are each other's nearest neighbour. The nearest of 2 is 1, but not the reverse.
    database = np.array([[1, 0], [0.9, 0.1], [0.5, 0.2]])
    assert neighbour_graph(database, 1).toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("alpha", [0.5, 0.9, ALPHA])
@pytest.mark.parametrize("k", [1, 4, 39])
@pytest.mark.parametrize("neighbours", [1, QUERY_NEIGHBOURS, 100])
def test_scores_solve_the_full_system(alpha, k, neighbours):
    database = random_rows(40, 5, 0)
    similar = compute_similarities(random_rows(6, 5, 1), database)
    scores = diffuse(neighbour_graph(database, k), similar, neighbours, alpha)
    expected = dense_scores(dense_graph(database, k), similar, neighbours, alpha)
    # A residual of 1e-5 becomes an error of at most 1 / (1 - alpha) times as much.
    bound = 1e-5 * np.linalg.norm(similar, axis=1).max() ** 3 / (1 - alpha)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=bound)
    assert (scores.shape, scores.dtype) == ((6, 40), np.float64)


def test_a_pair_shares_what_reaches_it():
    # S = [[0, 1], [1, 0]] and y = (1, 0): f = (1, alpha) / (1 - alpha²).
    graph = neighbour_graph(np.array([[1, 0], [1, 0]], np.float32), 1)
    scores = diffuse(graph, np.array([[1, 0]], np.float32), 1, alpha=0.5)
    np.testing.assert_allclose(scores, [[4 / 3, 2 / 3]], rtol=1e-5)
    np.testing.assert_allclose(
        diffuse(graph, np.array([[1, 0]], np.float32)), np.array([[1, 0.99]]) / (1 - 0.99**2), rtol=1e-5
    )


def chain():
    """Return a chain of four images, each similar to the next, one separate image, and a query.

    The query is most similar to the first image of the chain, less to the separate image, and to no other.

    Returns:
        (5, 5) descriptors in the order first, third, separate, second, fourth; (1, 5) query.
    """
    cosines = np.eye(4) + HALF * (np.eye(4, k=1) + np.eye(4, k=-1))
    rows = np.zeros((5, 5))
    rows[:4, :4] = np.linalg.cholesky(cosines)
    rows[4, 4] = 1
    query = np.array([[0.9, 0, 0, 0, 0.1]])
    return rows[[0, 2, 4, 1, 3]].astype(np.float32), query.astype(np.float32)


def test_a_chain_of_neighbours_brings_an_unlike_image_before_a_more_similar_one():
    database, query = chain()
    similar = compute_similarities(query, database)
    assert similar[0, 2] > 0 == similar[0, 1] == similar[0, 4]
    scores = diffuse(neighbour_graph(database, 2), similar, neighbours=1)
    assert rank(similar)[0].tolist() == [0, 3, 2, 1, 4]
    assert scores[0, 2] == 0
    # Degrees are 1/8 at both ends and 1/4 between: beside its diagonal, S has 1 / sqrt(2), 1/2, 1 / sqrt(2).
    path = np.diag([0.5**0.5, 0.5, 0.5**0.5], 1)
    by_hand = np.linalg.solve(np.eye(4) - ALPHA * (path + path.T), [0.9**3, 0, 0, 0])
    np.testing.assert_allclose(scores[0, [0, 3, 1, 4]], by_hand, rtol=1e-4)
    ranking = rank(negative_ranks(scores, similar))[0].tolist()
    assert ranking == [*np.array([0, 3, 1, 4])[np.argsort(-by_hand)], 2]


def test_images_that_diffusion_does_not_reach_come_behind_by_similarity():
    scores = np.array([[0, 0.2, 0, -1e-9, 0.7, 0]])
    similar = np.array([[0.5, 0.1, 0.9, 0.6, 0.2, 0.9]], np.float32)
    after = negative_ranks(scores, similar)
    assert rank(after).tolist() == [[4, 1, 2, 5, 3, 0]]
    assert after.tolist() == [[-5, -1, -2, -4, 0, -3]]
    assert after.dtype == np.float32


def test_scores_that_differ_by_rounding_alone_tie():
    scores = np.array([[0.3, 0.3 + 5e-17, 0.1 + 0.2]])
    assert rank(negative_ranks(scores, np.zeros((1, 3), np.float32))).tolist() == [[0, 1, 2]]


def test_each_query_is_ranked_separately():
    database = random_rows(40, 5, 2)
    similar = compute_similarities(random_rows(6, 5, 3), database)
    scores = diffuse(neighbour_graph(database, 3), similar, neighbours=2)
    for row, values, ranking in zip(similar, scores, rank(negative_ranks(scores, similar)), strict=True):
        reached = np.float32(np.maximum(values, 0))
        assert ranking.tolist() == sorted(range(40), key=lambda p, r=reached, s=row: (-r[p], -s[p], p))
        assert 0 < np.count_nonzero(reached) < 40


def test_equal_images_keep_the_databases_order():
    database = np.repeat(random_rows(8, 4, 4), 3, axis=0)
    similar = compute_similarities(random_rows(5, 4, 5), database)
    ranking = rank(negative_ranks(diffuse(neighbour_graph(database, 23), similar, 24), similar))
    assert ranking.shape == (5, 24)
    assert (ranking.reshape(5, 8, 3) // 3 == ranking[:, ::3, np.newaxis] // 3).all()
    assert (ranking.reshape(5, 8, 3) % 3 == [0, 1, 2]).all()


def test_images_that_are_all_equal_stay_in_the_databases_order():
    database = np.tile(random_rows(1, 16, 6), (7, 1))
    similar = compute_similarities(database[:1], database)
    scores = diffuse(neighbour_graph(database, 10), similar)
    assert rank(negative_ranks(scores, similar)).tolist() == [[0, 1, 2, 3, 4, 5, 6]]
    # Every row of S sums to 1, and y is 1 everywhere, so that f = 1 / (1 - alpha) everywhere.
    np.testing.assert_allclose(scores, np.full((1, 7), 100), rtol=1e-4)


@pytest.mark.parametrize("database", [np.zeros((3, 2)), np.eye(3), np.array([[1, 0], [-1, 0], [0, -1]])])
def test_images_without_neighbours_keep_their_initial_score(database):
    with np.errstate(all="raise"):  # no division by their degree of 0
        graph = neighbour_graph(database.astype(np.float32), 2)
    assert graph.nnz == 0
    similar = np.array([[0.5, -1, 0.2]], np.float32)
    np.testing.assert_allclose(diffuse(graph, similar), [[0.125, 0, 0.008]], rtol=1e-6)


def test_a_query_that_is_like_nothing_keeps_its_ranking():
    database = random_rows(5, 3, 7)
    similar = np.array([[-0.3, -0.1, 0, -0.1, -0.2]], np.float32)
    scores = diffuse(neighbour_graph(database, 4), similar)
    assert scores.tolist() == [[0] * 5]
    assert rank(negative_ranks(scores, similar)).tolist() == [[2, 1, 3, 4, 0]]


def test_a_single_image_is_retrieved():
    graph = neighbour_graph(np.ones((1, 2), np.float32), 5)
    scores = diffuse(graph, np.array([[0.5]], np.float32))
    np.testing.assert_allclose(scores, [[0.125]], rtol=1e-6)
    assert negative_ranks(scores, np.array([[0.5]], np.float32)).tolist() == [[0]]
