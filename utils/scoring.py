"""Average precision of many queries at once, from similarities alone: no ranking is written down."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from utils.compute_ap import average_precision
from utils.oxford_paris import Query


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
    place_of = {name: place for place, name in enumerate(names)}
    with ThreadPoolExecutor() as pool:  # sorting, most of the work, leaves Python's lock to others
        precisions = pool.map(partial(score_query, place_of), queries, similarities)
        return {query.name: precision for query, precision in zip(queries, precisions, strict=True)}


def score_query(place_of: Mapping[str, int], query: Query, similarities: np.ndarray) -> float:
    """Average precision of one query.

    Args:
        place_of: each image's place in the database.
        query: with its labels; images of both kinds are junk, but still count as to be found.
        similarities: (N,).
    """
    positives = query.good | query.ok
    to_find = [place_of[name] for name in positives - query.junk if name in place_of]
    junk = [place_of[name] for name in query.junk if name in place_of]
    ranks = ranks_of(np.array([*to_find, *junk], np.int64), similarities)
    found, passed_over = np.sort(ranks[: len(to_find)]), np.sort(ranks[len(to_find) :])
    return average_precision((found - np.searchsorted(passed_over, found)).tolist(), len(positives))


def ranks_of(places: np.ndarray, similarities: np.ndarray) -> np.ndarray:
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
