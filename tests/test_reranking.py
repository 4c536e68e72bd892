"""Re-rankings by descriptors, compared with loops over sets and lists."""

import math

import numpy as np
import pytest
from helpers import rankings_of, unit

from utils.options.shared import SearchOptions
from utils.search.exact import Found, search_rows
from utils.search.reranking.k_reciprocal import k_reciprocal
from utils.search.reranking.reranker import FirstImages, order_by_score, rerank
from utils.search.reranking.superglobal import superglobal
from utils.search.run_searches import search


def directions(count, seed, dimensions=6):
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions))).astype(np.float32)


def first_images(count, seed):
    """Return the first images of a query, in the order of a search."""
    query, rows = directions(1, seed)[0], directions(count, seed + 100)
    order = np.argsort(-(rows @ query))
    return FirstImages(0, query, order, rows[order])


def nearest(distances, count):
    return sorted(range(len(distances)), key=lambda index: distances[index])[:count]


def superglobal_by_loops(query, rows, k, beta=0.15):
    refined = []
    for row in rows:
        others = [other for other in rows if other is not row]
        others.sort(key=lambda other: -float(row @ other))
        weights = [1.0] + [beta * max(float(row @ other), 0) for other in others[:k]]
        members = [row, *others[:k]]
        refined.append(
            sum(weight * member for weight, member in zip(weights, members, strict=True)) / sum(weights)
        )
    to_query = [float(query @ row) for row in refined]
    best = nearest([-similarity for similarity in to_query], k + 1)
    expanded = [max(float(refined[index][d]) for index in best) for d in range(len(query))]
    return [
        (similarity + float(row @ np.array(expanded))) / 2
        for similarity, row in zip(to_query, refined, strict=True)
    ]


def k_reciprocal_by_loops(query, rows, k1, k2, weight):
    rows = [query, *rows]
    n = len(rows)
    distances = [[sum((a - b) ** 2) for b in rows] for a in rows]
    distances = [[value / max(line) for value in line] for line in distances]

    def mutual(image, k):
        """Return the images that are among the k nearest neighbours of an image, and it among theirs."""
        return {
            other for other in nearest(distances[image], k + 1) if image in nearest(distances[other], k + 1)
        }

    encodings = []
    for image in range(n):
        members = mutual(image, k1)
        expanded = set(members)
        for member in members:
            half = mutual(member, round(k1 / 2))
            if len(half & members) > 2 / 3 * len(half):
                expanded |= half
        weights = [math.exp(-distances[image][other]) if other in expanded else 0 for other in range(n)]
        encodings.append([value / sum(weights) for value in weights])
    means = []
    for image in range(n):
        joined = [encodings[other] for other in nearest(distances[image], k2)]
        means.append([sum(values) / k2 for values in zip(*joined, strict=True)])
    scores = []
    for image in range(1, n):
        pairs = list(zip(means[0], means[image], strict=True))
        jaccard = 1 - sum(map(min, pairs)) / sum(map(max, pairs))
        scores.append(-((1 - weight) * jaccard + weight * distances[0][image]))
    return scores


@pytest.mark.parametrize(("count", "k"), [(30, 3), (30, 9), (5, 9), (1, 3)])
def test_superglobal_equals_loops(count, k):
    first = first_images(count, 1)
    rows = list(first.descriptors.astype(np.float64))
    expected = superglobal_by_loops(first.query_descriptor.astype(np.float64), rows, k)
    np.testing.assert_allclose(superglobal(first, k), expected, atol=1e-9)
    assert k != 3 or np.array_equal(superglobal(first), superglobal(first, 3))  # the default


@pytest.mark.parametrize(("count", "k1", "k2"), [(40, 10, 3), (40, 20, 6), (6, 10, 3), (40, 4, 1)])
def test_k_reciprocal_equals_loops(count, k1, k2):
    first = first_images(count, 2)
    rows = list(first.descriptors.astype(np.float64))
    expected = k_reciprocal_by_loops(first.query_descriptor.astype(np.float64), rows, k1, k2, 0.7)
    np.testing.assert_allclose(k_reciprocal(first, k1), expected, atol=1e-9)
    assert k1 != 10 or np.array_equal(k_reciprocal(first), k_reciprocal(first, 10))  # the default


@pytest.mark.parametrize("method", [superglobal, k_reciprocal])
def test_no_image_and_equal_images_are_no_error(method):
    query, rows = directions(1, 0)[0], directions(1, 0)
    assert method(FirstImages(0, query, np.empty(0, np.int64), np.empty((0, 6), np.float32))).shape == (0,)
    scores = method(FirstImages(0, query, np.arange(4), np.repeat(rows, 4, axis=0)))
    np.testing.assert_allclose(scores, np.full(4, scores[0]), atol=1e-12)


def test_only_the_first_ranks_change():
    found = Found(
        np.array([[7, 3, 5, 1], [2, 0, 4, 6]]),
        np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, 0.2]], np.float32),
        [np.array([0, 1, 2, 3, 90]), np.array([2, 0])],
    )
    queries, database = directions(2, 0), directions(8, 1)
    seen = []

    def last_first(first):
        seen.append(first)
        return np.arange(len(first.indices))

    new = rerank(found, queries, database, 3, last_first)
    assert new.indices.tolist() == [[5, 3, 7, 1], [4, 0, 2, 6]]
    np.testing.assert_array_equal(new.similarities[0], np.array([0.7, 0.8, 0.9, 0.6], np.float32))
    assert [ranks.tolist() for ranks in new.ranks] == [[2, 1, 0, 3, 90], [0, 2]]
    assert [first.query for first in seen] == [0, 1]
    np.testing.assert_array_equal(seen[1].query_descriptor, queries[1])
    np.testing.assert_array_equal(seen[1].descriptors, database[[2, 0, 4]])
    assert found.indices[0].tolist() == [7, 3, 5, 1]


def test_images_that_a_search_left_out_keep_their_ranks():
    similarities = np.array([[0.9, 0.8, -np.inf]], np.float32)
    found = Found(np.array([[4, 2, 0]]), similarities, [np.array([0, 1, 2])])
    new = rerank(found, directions(1, 0), directions(5, 1), 3, lambda first: np.arange(len(first.indices)))
    assert new.indices.tolist() == [[2, 4, 0]]
    assert new.ranks[0].tolist() == [1, 0, 2]


def test_images_without_a_score_keep_their_ranks():
    scores = np.array([0.1, np.nan, 0.3, 0.2, np.nan, 0.4])
    assert order_by_score(scores).tolist() == [5, 1, 2, 3, 4, 0]


def test_images_of_equal_score_keep_their_order():
    queries, database = directions(2, 0), directions(9, 1)
    found = search_rows(queries, database, 9, [np.arange(9)] * 2)
    new = rerank(found, queries, database, 5, lambda first: np.zeros(len(first.indices)))
    np.testing.assert_array_equal(new.indices, found.indices)
    np.testing.assert_array_equal(new.ranks, found.ranks)


def test_each_search_is_reranked_with_its_own_queries():
    queries, database = directions(3, 0), directions(20, 1)
    options = SearchOptions(qe=2, diffusion=4, rerank=6)
    seen = []

    def last_first(first):
        seen.append(first.query_descriptor)
        return np.arange(len(first.indices))

    labelled = [np.arange(20)] * 3
    results = search(queries, database, labelled, options, 0, rerankers={"turned": last_first}).searches
    turned = [name for name in results if name.startswith("turned")]
    assert turned == ["turned", "turned after query expansion", "turned after diffusion"]
    expanded = results["query expansion"].queries
    np.testing.assert_array_equal(seen, [*queries, *expanded, *expanded])
    for before, after in zip(("search", "query expansion", "diffusion"), turned, strict=True):
        for old, new in zip(rankings_of(results[before]), rankings_of(results[after]), strict=True):
            np.testing.assert_array_equal(new, [*old[:6][::-1], *old[6:]])
        by_rank = np.argsort(results[after].found.ranks, axis=1)
        np.testing.assert_array_equal(rankings_of(results[after]), by_rank)
