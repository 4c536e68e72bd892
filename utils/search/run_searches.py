"""The searches of an evaluation: plain search, query expansion, diffusion."""

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
"""Names of the searches, in the order in which they run."""


class SearchResults(NamedTuple):
    """The results of the searches of one evaluation."""

    similarities: dict[str, np.ndarray]
    """(Q, N) values to rank images by, per search; the plain search first."""
    recall: dict[str, float]
    """Recall of the approximate index, per `recall@k`; empty for exact search."""
    seconds: dict[str, float]
    """Seconds per search and per preparatory step."""


def search(queries: np.ndarray, database: Rows, options: SearchOptions, seed: int) -> SearchResults:
    """Run the searches that the options select, and measure an approximate index.

    Args:
        queries: (Q, D).
        database: (N, D).
        options: options of the searches.
        seed: random seed for the training vectors of an approximate index.

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
    """Run the searches that the options select.

    Args:
        queries: (Q, D).
        database: (N, D).
        compare: function from queries, (Q, D), to similarities, (Q, N), which are minus infinity for images
            that are not retrieved.
        options: options of the searches.
        seconds: receives the time of each search.

    Returns:
        (Q, N) values to rank images by, per search, in the order plain search, query expansion, diffusion.
    """
    results = {}
    with timed(seconds, PLAIN):
        similarities = results[PLAIN] = compare(queries)
    if options.qe:
        with timed(seconds, EXPANDED):
            first = first_indices(similarities, options.qe)
            retrieved = np.isfinite(np.take_along_axis(similarities, first, axis=1))
            queries = expand_queries(queries, database, first, options.alpha, retrieved)
            similarities = results[EXPANDED] = compare(queries)
    if options.diffusion:
        with timed(seconds, DIFFUSED):
            graph = neighbour_graph(database, options.diffusion)
            scores = diffuse(graph, similarities, alpha=options.diffusion_alpha)
            results[DIFFUSED] = negative_ranks(scores, similarities)
    return results
