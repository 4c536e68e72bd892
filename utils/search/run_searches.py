"""The searches of an evaluation: plain search, query expansion, diffusion, and re-rankings of each."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from utils.descriptors.rows import Rows
from utils.options.shared import SearchOptions
from utils.processes import ALONE, Processes
from utils.search.approximate import approximate_similarities, build_index, report_left_out, report_recall
from utils.search.database_augmentation import augment_database
from utils.search.diffusion import diffuse, negative_ranks, neighbour_graph
from utils.search.exact import Found, search_rows
from utils.search.neighbours import Neighbours, approximate_neighbours, nearest_neighbours
from utils.search.query_expansion import expand_queries
from utils.search.reranking.reranker import Reranker, rerank
from utils.search.similarity import QUERIES, Compare, compute_similarities, rank, search_by_sorting
from utils.timing import timed

PLAIN, EXPANDED, DIFFUSED = "search", "query expansion", "diffusion"
"""Names of the searches, in the order in which they run."""


class Find(Protocol):
    """A search for the first rows of queries and for the ranks of labelled rows."""

    def __call__(self, *, queries: np.ndarray, count: int, labelled: Sequence[np.ndarray]) -> Found:
        """Search, with the arguments of `utils.search.exact.search_rows`."""


class SearchResult(NamedTuple):
    """The results of one search."""

    found: Found
    """First images of each query, and ranks of its labelled images."""
    queries: np.ndarray
    """(Q, D) descriptors that the search used."""
    compare: Compare
    """Function from descriptors of queries to values to rank all images by."""

    def rankings(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices of all images by rank and their similarities, (N,), per query.

        This searches again. The similarities after a re-ranking are the similarities before it.
        """
        for start in range(0, len(self.queries), QUERIES):
            block = slice(start, start + QUERIES)
            similarities = self.compare(self.queries[block])
            for first, ranking, values in zip(
                self.found.indices[block], rank(similarities), similarities, strict=True
            ):
                order = np.concatenate([first, ranking[~np.isin(ranking, first)]])
                yield order, values[order]


class SearchResults(NamedTuple):
    """The results of the searches of one evaluation."""

    searches: dict[str, SearchResult]
    """Result per search; the plain search first."""
    recall: dict[str, float]
    """Recall of the approximate index, per `recall@k`; empty for exact search."""
    seconds: dict[str, float]
    """Seconds per search and per preparatory step."""


def approximates_neighbours(options: SearchOptions, count: int) -> bool:
    """Return True if the options ask for approximate neighbours in a database of `count` images."""
    if options.exact_neighbours is None or not (options.dba or options.diffusion):
        return False
    return count > options.exact_neighbours


def search(
    queries: np.ndarray,
    database: Rows,
    labelled: Sequence[np.ndarray],
    options: SearchOptions,
    seed: int,
    shown: int = 0,
    processes: Processes = ALONE,
    rerankers: Mapping[str, Reranker] | None = None,
) -> SearchResults:
    """Run the searches that the options select, re-rank their results, and measure an approximate index.

    Args:
        queries: (Q, D).
        database: (N, D).
        labelled: per query, the indices of its labelled images.
        options: options of the searches.
        seed: random seed for the training vectors of an approximate index.
        shown: number of first images per query that the caller needs.
        processes: processes that share the exact search, all of which call this function with equal
            arguments. Only the first one gets the result of diffusion. An index is searched by one process.
        rerankers: re-rankings by name, each of which re-ranks the results of each search, in the first
            process.

    Raises:
        UserError: FAISS is not installed, or the database is too small for the index.
    """
    seconds: dict[str, float] = {}
    recall: dict[str, float] = {}
    neighbours: Neighbours = partial(nearest_neighbours, processes=processes)
    if approximates_neighbours(options, len(database)):
        neighbours = partial(approximate_neighbours, processes=processes, seed=seed)
    if options.dba:
        with timed(seconds, "database augmentation"):
            database = augment_database(database, options.dba, neighbours, processes)

    compare: Compare = partial(compute_similarities, database=database)
    find: Find = partial(search_rows, database=database, processes=processes)
    left_out: list[int] = []
    if options.search != "exact":
        with timed(seconds, "index"):
            index = build_index(options.search, database, seed)
            recall = report_recall(index, queries, database)

        def compare(wanted: np.ndarray) -> np.ndarray:
            similarities = approximate_similarities(index, wanted, len(database))
            left_out.extend(np.isneginf(similarities).sum(axis=1).tolist())
            return similarities

        find = partial(search_by_sorting, compare)
    first = max(shown, options.rerank)
    searches = run_searches(
        queries, database, find, compare, neighbours, labelled, options, seconds, first, processes
    )
    for name, reranker in (rerankers or {}).items() if processes.leads else ():
        searches |= rerank_searches(searches, database, options.rerank, name, reranker, seconds)
    if left_out:
        report_left_out(left_out[: len(queries)], len(database))  # by the plain search
    return SearchResults(searches, recall, seconds)


def run_searches(
    queries: np.ndarray,
    database: Rows,
    find: Find,
    compare: Compare,
    neighbours: Neighbours,
    labelled: Sequence[np.ndarray],
    options: SearchOptions,
    seconds: dict[str, float],
    shown: int = 0,
    processes: Processes = ALONE,
) -> dict[str, SearchResult]:
    """Run the searches that the options select.

    Args:
        queries: (Q, D).
        database: (N, D).
        find: the search for first images and ranks.
        compare: function from queries, (Q, D), to similarities, (Q, N), which are minus infinity for images
            that are not retrieved.
        neighbours: search for the neighbours of each image.
        labelled: per query, the indices of its labelled images.
        options: options of the searches.
        seconds: receives the time of each search.
        shown: number of first images per query that the caller needs.
        processes: processes that share the searches, as for `search`.

    Returns:
        Result per search, in the order plain search, query expansion, diffusion.
    """
    results = {}
    with timed(seconds, PLAIN):
        found = find(queries=queries, count=max(shown, options.qe), labelled=labelled)
        results[PLAIN] = SearchResult(found, queries, compare)
    if options.qe:
        with timed(seconds, EXPANDED):
            first, similarities = found.indices[:, : options.qe], found.similarities[:, : options.qe]
            queries = expand_queries(queries, database, first, options.alpha, np.isfinite(similarities))
            found = find(queries=queries, count=shown, labelled=labelled)
            results[EXPANDED] = SearchResult(found, queries, compare)
    if options.diffusion:
        with timed(seconds, DIFFUSED):
            graph = neighbour_graph(database, options.diffusion, neighbours)

            def compare_diffused(wanted: np.ndarray) -> np.ndarray:
                similarities = compare(wanted)
                scores = diffuse(graph, similarities, alpha=options.diffusion_alpha)
                return negative_ranks(scores, similarities)

            if processes.leads:
                found = search_by_sorting(compare_diffused, queries, shown, labelled)
                results[DIFFUSED] = SearchResult(found, queries, compare_diffused)
    return results


def rerank_searches(
    searches: Mapping[str, SearchResult],
    database: Rows,
    count: int,
    name: str,
    reranker: Reranker,
    seconds: dict[str, float],
) -> dict[str, SearchResult]:
    """Re-rank the first images of the plain search, the expansion and the diffusion.

    Args:
        searches: result per search; other re-rankings among them are left out.
        database: (N, D).
        count: number of images to re-rank per query.
        name: name of the re-ranking.
        reranker: the re-ranking.
        seconds: receives the time of each re-ranking.

    Returns:
        Result per search that is re-ranked, by the name of the re-ranking and of the search.
    """
    results = {}
    for search_name in (PLAIN, EXPANDED, DIFFUSED):
        if search_name in searches:
            result = searches[search_name]
            title = name if search_name == PLAIN else f"{name} after {search_name}"
            with timed(seconds, title):
                found = rerank(result.found, result.queries, database, count, reranker)
            results[title] = result._replace(found=found)
    return results
