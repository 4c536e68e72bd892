"""Searches shared by processes equal searches by one process. Threads replace the processes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import unit

from utils.descriptors.rows import StoredRows, row_blocks
from utils.options.shared import SearchOptions
from utils.search import database_augmentation, neighbours
from utils.search.database_augmentation import augment_database
from utils.search.exact import search_rows
from utils.search.neighbours import approximate_neighbours, nearest_neighbours
from utils.search.run_searches import search

ROWS = 230


class SharedProcesses:
    """One of several threads that act as processes: their items are exchanged at a barrier."""

    def __init__(self, index, barrier, exchanged):
        self.index, self.count = index, barrier.parties
        self._barrier, self._exchanged = barrier, exchanged

    @property
    def leads(self):
        return self.index == 0

    def share(self, items):
        return items[self.index :: self.count]

    def gather(self, items):
        self._exchanged[self.index] = items
        self._barrier.wait()
        gathered = [item for index in range(self.count) for item in self._exchanged[index]]
        self._barrier.wait()
        return gathered

    def add_up_array(self, array):
        return np.sum(self.gather([array]), axis=0, dtype=array.dtype)


def run_shared(count, function):
    """Return the results of a function of the processes, from each of several threads."""
    barrier, exchanged = threading.Barrier(count, timeout=60), {}
    with ThreadPoolExecutor(count) as pool:
        processes = [SharedProcesses(index, barrier, exchanged) for index in range(count)]
        return list(pool.map(function, processes))


def random_rows(count, seed, distinct=None):
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((distinct or count, 24))).astype(np.float32)
    return rows if distinct is None else rows[rng.integers(0, distinct, count)]


@pytest.fixture(params=["array", "shards"])
def database(request, monkeypatch):
    """A database with many equal rows, in memory or in 7 shards of different lengths in another order."""
    monkeypatch.setattr("utils.descriptors.rows.BLOCK", 20)
    rows = random_rows(ROWS, 0, distinct=150)
    if request.param == "array":
        return rows
    order = np.random.default_rng(1).permutation(ROWS)
    shards = np.split(rows[order], [5, 6, 70, 71, 100, 160])
    return StoredRows(shards, np.argsort(order))


@pytest.mark.parametrize("count", [2, 3, 9])  # there are 7 shards
@pytest.mark.parametrize("first", [1, 8, 100, ROWS])
def test_first_rows_and_ranks_equal_those_of_one_process(database, count, first):
    queries = random_rows(6, 2)
    labelled = [np.random.default_rng(query).permutation(ROWS)[: 40 * query] for query in range(6)]
    alone = search_rows(queries, database, first, labelled)
    for found in run_shared(count, lambda each: search_rows(queries, database, first, labelled, "cpu", each)):
        np.testing.assert_array_equal(found.indices, alone.indices)
        np.testing.assert_array_equal(found.similarities, alone.similarities)
        for ranks, expected in zip(found.ranks, alone.ranks, strict=True):
            np.testing.assert_array_equal(ranks, expected)


def test_each_row_is_in_the_blocks_of_one_share(database):
    shares = [[indices for indices, _ in row_blocks(database, share, 3)] for share in range(3)]
    assert all(shares)
    assert sorted(np.concatenate([block for share in shares for block in share])) == list(range(ROWS))
    for indices, rows in row_blocks(database, 1, 3):
        np.testing.assert_array_equal(rows, database[indices])


@pytest.mark.parametrize("count", [2, 3])
def test_neighbours_and_augmentation_equal_those_of_one_process(monkeypatch, database, count):
    monkeypatch.setattr(neighbours, "ROWS", 50)
    monkeypatch.setattr(database_augmentation, "ROWS", 30)
    indices, similarities = nearest_neighbours(database, 4)
    for shared, similar in run_shared(count, lambda each: nearest_neighbours(database, 4, each)):
        np.testing.assert_array_equal(shared, indices)
        np.testing.assert_array_equal(similar, similarities)

    def augment(each):
        return augment_database(database, 4, lambda rows, k: nearest_neighbours(rows, k, each), each)

    for augmented in run_shared(count, augment):
        np.testing.assert_array_equal(augmented, augment_database(database, 4))


def test_the_first_process_approximates_neighbours_for_all():
    pytest.importorskip("faiss")
    database = random_rows(400, 3)
    indices, _ = approximate_neighbours(database, 5)
    for shared, _ in run_shared(2, lambda each: approximate_neighbours(database, 5, each)):
        np.testing.assert_array_equal(shared, indices)


@pytest.mark.parametrize("count", [2, 3])
def test_all_searches_of_an_evaluation_equal_those_of_one_process(database, count):
    options = SearchOptions(qe=3, alpha=1, dba=2, diffusion=5, diffusion_alpha=0.8)
    queries = random_rows(5, 4)
    labelled = [np.random.default_rng(query).permutation(ROWS)[:30] for query in range(5)]
    alone = search(queries, database, labelled, options, 0).searches
    leader, *others = run_shared(
        count, lambda each: search(queries, database, labelled, options, 0, processes=each).searches
    )
    assert leader.keys() == alone.keys()
    for name, expected in alone.items():
        np.testing.assert_array_equal(leader[name].found.ranks, expected.found.ranks)
    assert all(other.keys() == {"search", "query expansion"} for other in others)
