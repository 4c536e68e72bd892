from functools import partial

import numpy as np
import pytest
from helpers import rankings_of

from utils.options.shared import SearchOptions
from utils.search.exact import search_rows
from utils.search.neighbours import nearest_neighbours
from utils.search.run_searches import DIFFUSED, EXPANDED, PLAIN, run_searches, search
from utils.search.similarity import compute_similarities, search_by_sorting

COUNT = 20
"""Number of images in the database."""

BOTH = SearchOptions(qe=2, diffusion=4, diffusion_alpha=0.9)


def directions(count, seed):
    vectors = np.random.default_rng(seed).standard_normal((count, 6))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def run(queries, database, compare, options, seconds):
    """Search by a function that returns all similarities, with all images as labelled images."""
    find = partial(search_by_sorting, compare)
    labelled = [np.arange(COUNT)] * len(queries)
    return run_searches(queries, database, find, compare, nearest_neighbours, labelled, options, seconds)


def test_expansion_asks_for_the_similarities_to_its_mean():
    queries, database = directions(3, 0), directions(COUNT, 1)
    asked, seconds = [], {}

    def similarities_to(wanted):
        asked.append(wanted)
        return compute_similarities(wanted, database)

    results = run(queries, database, similarities_to, BOTH, seconds)
    assert list(results) == list(seconds) == [PLAIN, EXPANDED, DIFFUSED]
    np.testing.assert_array_equal(asked[0], queries)
    rankings = np.argsort(-(queries @ database.T), axis=1)
    np.testing.assert_array_equal(rankings_of(results[PLAIN]), rankings)
    mean = (queries + database[rankings[:, :2]].sum(axis=1)) / 3
    np.testing.assert_allclose(asked[1], mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(
        rankings_of(results[EXPANDED]), np.argsort(-(asked[1] @ database.T), axis=1)
    )
    for result in results.values():
        by_rank = np.argsort(result.found.ranks, axis=1)
        np.testing.assert_array_equal(rankings_of(result), by_rank)


def test_images_that_an_index_leaves_out_have_no_similarity_to_the_query():
    queries, database = directions(3, 0), directions(COUNT, 1)
    ranks = {}
    for nothing in (-np.inf, 0.0):

        def first_five(wanted, nothing=nothing):
            similar = compute_similarities(wanted, database)
            least = np.sort(similar, axis=1)[:, -5:][:, :1]
            assert (least > 0).all()
            return np.where(similar < least, np.float32(nothing), similar)

        results = run(queries, database, first_five, BOTH, {})
        ranks[nothing] = {name: np.array(result.found.ranks) for name, result in results.items()}
    assert ranks[0.0].keys() == ranks[-np.inf].keys() == {PLAIN, EXPANDED, DIFFUSED}
    for name, of_search in ranks[0.0].items():
        np.testing.assert_array_equal(ranks[-np.inf][name], of_search)
    rankings = np.argsort(ranks[0.0][PLAIN], axis=1)
    assert (np.diff(rankings[:, 5:]) > 0).all()  # all other images, in the database's order


def test_expansion_ignores_images_that_an_approximate_search_left_out():
    queries, database = directions(1, 0), directions(COUNT, 1)
    asked = []

    def three_at_most(wanted):
        asked.append(wanted)
        similar = compute_similarities(wanted, database)
        return np.where(similar >= np.sort(similar, axis=1)[:, -3:-2], similar, np.float32(-np.inf))

    run(queries, database, three_at_most, SearchOptions(qe=9), {})
    nearest = np.argsort(-(queries @ database.T)[0])[:3]
    total = queries[0] + database[nearest].sum(axis=0)
    np.testing.assert_allclose(asked[1][0], total / np.linalg.norm(total), atol=1e-6)


@pytest.mark.parametrize("options", [BOTH, SearchOptions(qe=0), SearchOptions(qe=3, dba=2, alpha=2)])
def test_counted_ranks_equal_ranks_by_sorting_in_every_search(options):
    queries, database = directions(40, 0), directions(COUNT, 1)  # more queries than are compared at a time
    labelled = [np.random.default_rng(query).permutation(COUNT)[: query % 7] for query in range(40)]
    for name, result in search(queries, database, labelled, options, seed=0, shown=4).searches.items():
        rankings = rankings_of(result)
        for indices, ranks, ranking in zip(labelled, result.found.ranks, rankings, strict=True):
            assert [ranking.tolist().index(index) for index in indices] == ranks.tolist(), name
        np.testing.assert_array_equal(result.found.indices[:, :4], np.array(rankings)[:, :4])


def test_a_search_by_sorting_equals_the_exact_search():
    queries, database = directions(40, 2), directions(COUNT, 3)
    labelled = [np.arange(query % 5) for query in range(40)]
    compare = partial(compute_similarities, database=database)
    by_sorting = search_by_sorting(compare, queries, 6, labelled)
    exact = search_rows(queries, database, 6, labelled)
    np.testing.assert_array_equal(by_sorting.indices, exact.indices)
    np.testing.assert_array_equal(by_sorting.similarities, exact.similarities)
    for actual, expected in zip(by_sorting.ranks, exact.ranks, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_neighbours_are_approximated_above_the_limit_alone(monkeypatch):
    asked = []

    def approximate(database, k, processes, seed):
        asked.append((len(database), k, seed))
        return nearest_neighbours(database, k)

    monkeypatch.setattr("utils.search.run_searches.approximate_neighbours", approximate)
    for limit in (None, COUNT, COUNT - 1):
        options = SearchOptions(qe=0, dba=2, diffusion=3, exact_neighbours=limit)
        search(directions(2, 0), directions(COUNT, 1), [np.arange(3)] * 2, options, seed=5)
    assert asked == [(COUNT, 2, 5), (COUNT, 3, 5)]
