import numpy as np

from utils.options.shared import SearchOptions
from utils.search.run_searches import DIFFUSED, EXPANDED, PLAIN, run_searches
from utils.search.similarity import compute_similarities, rank


def directions(count, seed):
    vectors = np.random.default_rng(seed).standard_normal((count, 6))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_expansion_asks_for_the_similarities_to_its_mean():
    queries, database = directions(3, 0), directions(20, 1)
    asked = []

    def similarities_to(wanted):
        asked.append(wanted)
        return compute_similarities(wanted, database)

    seconds = {}
    options = SearchOptions(qe=2, diffusion=4, diffusion_alpha=0.9)
    results = run_searches(queries, database, similarities_to, options, seconds)
    assert list(results) == list(seconds) == [PLAIN, EXPANDED, DIFFUSED]
    assert len(asked) == 2
    np.testing.assert_array_equal(asked[0], queries)
    np.testing.assert_allclose(results[PLAIN], queries @ database.T, atol=1e-6)
    first = np.argsort(-(queries @ database.T), axis=1)[:, :2]
    mean = (queries + database[first].sum(axis=1)) / 3
    np.testing.assert_allclose(asked[1], mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(results[EXPANDED], asked[1] @ database.T, atol=1e-6)
    assert np.sort(results[DIFFUSED], axis=1).tolist() == [list(range(-19, 1))] * 3  # minus ranks


def test_images_that_an_index_leaves_out_have_no_similarity_to_the_query():
    queries, database = directions(3, 0), directions(20, 1)
    rankings = {}
    for nothing in (-np.inf, 0.0):

        def first_five(wanted, nothing=nothing):
            similar = compute_similarities(wanted, database)
            least = np.sort(similar, axis=1)[:, -5:][:, :1]
            assert (least > 0).all()
            return np.where(similar < least, np.float32(nothing), similar)

        options = SearchOptions(qe=2, diffusion=4, diffusion_alpha=0.9)
        results = run_searches(queries, database, first_five, options, {})
        rankings[nothing] = {name: rank(similar) for name, similar in results.items()}
    assert rankings[0.0].keys() == rankings[-np.inf].keys() == {PLAIN, EXPANDED, DIFFUSED}
    for name, ranking in rankings[0.0].items():
        np.testing.assert_array_equal(rankings[-np.inf][name], ranking)
    assert (np.diff(rankings[0.0][PLAIN][:, 5:]) > 0).all()  # all other images, in the database's order


def test_expansion_ignores_images_that_an_approximate_search_left_out():
    queries, database = directions(1, 0), directions(20, 1)

    def three_at_most(wanted):
        similar = compute_similarities(wanted, database)
        return np.where(similar >= np.sort(similar, axis=1)[:, -3:-2], similar, np.float32(-np.inf))

    asked = []

    def compare(wanted):
        asked.append(wanted)
        return three_at_most(wanted)

    run_searches(queries, database, compare, SearchOptions(qe=9), {})
    nearest = np.argsort(-(queries @ database.T)[0])[:3]
    total = queries[0] + database[nearest].sum(axis=0)
    np.testing.assert_allclose(asked[1][0], total / np.linalg.norm(total), atol=1e-6)
