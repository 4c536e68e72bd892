"""The searches of an evaluation: the plain one, then with expanded queries, then by diffusion."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from utils.descriptors.rows import Rows
from utils.options.shared import SearchOptions
from utils.search.approximate import approximate_similarities, build_index, report_left_out, report_recall
from utils.search.database_augmentation import augment_database
from utils.search.diffusion import diffuse, negative_ranks, neighbour_graph
from utils.search.query_expansion import expand_queries
from utils.search.similarity import compute_similarities, first_indices
from utils.timing import timed

PLAIN, EXPANDED, DIFFUSED = "search", "query expansion", "diffusion"
"""Names of the searches, in their order."""


class SearchResults(NamedTuple):
    """The results of the searches of one evaluation."""

    similarities: dict[str, np.ndarray]
    """(Q, N) per search, by which the images rank; the plain search first."""
    recall: dict[str, float]
    """Recall of the approximate index against exact search, by `recall@k`; empty for exact search."""
    seconds: dict[str, float]
    """Time per search, and per step before the first one."""


def search(queries: np.ndarray, database: Rows, options: SearchOptions, seed: int) -> SearchResults:
    """Search plainly, then with expanded queries, then by diffusion, as far as the options ask for them.

    Args:
        queries: (Q, D).
        database: (N, D).
        options: how to search.
        seed: seed of the vectors that an approximate index is trained on.

    Raises:
        UserError: FAISS is not installed, or the database is too small for the index.
    """
    seconds: dict[str, float] = {}
    recall: dict[str, float] = {}
    if options.dba:
        with timed(seconds, "database augmentation"):
            database = augment_database(database, options.dba)

    compare: Callable[[np.ndarray], np.ndarray] = partial(compute_similarities, database=database)
    if options.search != "exact":
        with timed(seconds, "index"):
            index = build_index(options.search, database, seed)
            recall = report_recall(index, queries, database)
        compare = partial(approximate_similarities, index, count=len(database))
    results = run_searches(queries, database, compare, options, seconds)
    if options.search != "exact":
        report_left_out(results[PLAIN])
    return SearchResults(results, recall, seconds)


def run_searches(
    queries: np.ndarray,
    database: Rows,
    compare: Callable[[np.ndarray], np.ndarray],
    options: SearchOptions,
    seconds: dict[str, float],
) -> dict[str, np.ndarray]:
    """Run the searches that the options ask for.

    Args:
        queries: (Q, D).
        database: (N, D).
        compare: returns the (Q, N) similarities of the database to (Q, D) queries; minus infinity for images
            that were not retrieved.
        options: how to search.
        seconds: gets the time of each search.

    Returns:
        (Q, N) per search, by which the images rank: the plain search, then those with expanded queries and by
        diffusion.
    """
    results = {}
    with timed(seconds, PLAIN):
        similar = results[PLAIN] = compare(queries)
    if options.qe:
        with timed(seconds, EXPANDED):
            first = first_indices(similar, options.qe)
            retrieved = np.isfinite(np.take_along_axis(similar, first, axis=1))
            queries = expand_queries(queries, database, first, options.alpha, retrieved)
            similar = results[EXPANDED] = compare(queries)
    if options.diffusion:
        with timed(seconds, DIFFUSED):
            graph = neighbour_graph(database, options.diffusion)
            scores = diffuse(graph, similar, alpha=options.diffusion_alpha)
            results[DIFFUSED] = negative_ranks(scores, similar)
    return results
