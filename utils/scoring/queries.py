"""Average precision of many queries at once, from similarities alone: no ranking is written down."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from utils.data.oxford_paris import Query
from utils.scoring.compute_ap import average_precision


def score_queries(
    queries: Sequence[Query], names: Sequence[str], similarities: np.ndarray
) -> dict[str, float]:
    """Average precision of each query's ranking by falling similarity, ties in the database's order.

    What `compute_ap` finds by walking through a ranking of names follows from the ranks of the labelled
    images, and those from counting the images that are more similar.

    Args:
        queries: with their labels, in the order of the rows.
        names: the database's images, in the order of the columns.
        similarities: (Q, N).

    Returns:
        By query name: 0..1, or NaN where no positive is listed.
    """
    index_of = {name: place for place, name in enumerate(names)}
    with ThreadPoolExecutor() as pool:  # sorting, most of the work, leaves Python's lock to others
        precisions = pool.map(partial(score_query, index_of), queries, similarities)
        return {query.name: precision for query, precision in zip(queries, precisions, strict=True)}


def score_query(index_of: Mapping[str, int], query: Query, similarities: np.ndarray) -> float:
    """Average precision of one query.

    Args:
        index_of: each image's place in the database.
        query: with its labels; images of both kinds are junk, but still count as to be found.
        similarities: (N,).
    """
    positives = query.good | query.ok
    ranks = ranks_of_names(index_of, positives | query.junk, similarities)
    return average_precision(positive_ranks(query, ranks), len(positives))


def positive_ranks(query: Query, ranks: Mapping[str, int]) -> np.ndarray:
    """Where a query's positives are in its ranking once junk is taken out of that.

    Args:
        query: with its labels; an image that is junk as well is taken out.
        ranks: of all its labelled images that are in the database, from 0, with junk; others may be there.

    Returns:
        (K,) int64, from 0, rising; one for each positive that is in the database and no junk.
    """
    found, passed_over = (
        np.sort(np.array([ranks[name] for name in names if name in ranks], np.int64))
        for names in ((query.good | query.ok) - query.junk, query.junk)
    )
    return found - np.searchsorted(passed_over, found)


def ranks_of_names(
    index_of: Mapping[str, int], names: Collection[str], similarities: np.ndarray
) -> dict[str, int]:
    """Ranks, from 0, of the images of these names by `ranks_of_indices`; of those that are in the database.

    Args:
        index_of: each image's place in the database.
        names: in any order.
        similarities: (N,).
    """
    known = [name for name in names if name in index_of]
    places = np.array([index_of[name] for name in known], np.int64)
    return dict(zip(known, ranks_of_indices(places, similarities).tolist(), strict=True))


def ranks_of_indices(places: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    """Ranks, from 0, of some images by falling similarity, ties in the database's order.

    Args:
        places: (K,) places in the database.
        similarities: (N,).

    Returns:
        (K,) int64.
    """
    values = similarities[places]
    rising = np.sort(similarities)
    first, behind = (np.searchsorted(rising, values, side=side) for side in ("left", "right"))
    ranks = len(rising) - behind
    for item in np.flatnonzero(behind - first > 1):  # ties, which hardly ever are
        ranks[item] += np.count_nonzero(similarities[: places[item]] == values[item])
    return ranks
