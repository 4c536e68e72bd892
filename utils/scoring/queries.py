"""Average precision of all queries, computed from similarities without sorted rankings."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from utils.data.oxford_paris import Query
from utils.scoring.compute_ap import average_precision


def score_queries(
    queries: Sequence[Query], names: Sequence[str], similarities: np.ndarray
) -> dict[str, float]:
    """Return the average precision per query of the ranking by falling similarity.

    Ties are in the database's order. The result equals `compute_ap` of a ranking of names. It only needs the
    ranks of the labelled images, which follow from the number of images that are more similar.

    Args:
        queries: queries with labels, in the order of the rows.
        names: names of the database images, in the order of the columns.
        similarities: (Q, N).

    Returns:
        0..1 per query name, or NaN if no positive is listed.
    """
    index_of = {name: index for index, name in enumerate(names)}
    with ThreadPoolExecutor() as pool:  # sorting, most of the work, releases Python's global lock
        precisions = pool.map(partial(score_query, index_of), queries, similarities)
        return {query.name: precision for query, precision in zip(queries, precisions, strict=True)}


def score_query(index_of: Mapping[str, int], query: Query, similarities: np.ndarray) -> float:
    """Return the average precision of one query.

    Args:
        index_of: index in the database per image name.
        query: query with labels. An image that is both positive and junk is junk, but still counts as a
            positive in recall.
        similarities: (N,).
    """
    positives = query.good | query.ok
    ranks = ranks_of_names(index_of, positives | query.junk, similarities)
    return average_precision(positive_ranks(query, ranks), len(positives))


def positive_ranks(query: Query, ranks: Mapping[str, int]) -> np.ndarray:
    """Return the ranks of a query's positives in its ranking without junk.

    Args:
        query: query with labels; a positive that is also junk is left out.
        ranks: ranks from 0, in the ranking with junk, of at least the labelled images in the database.

    Returns:
        (K,) int64, from 0, rising, for the K positives that are in the database and not junk.
    """
    positive, junk = (
        np.sort(np.array([ranks[name] for name in names if name in ranks], np.int64))
        for names in ((query.good | query.ok) - query.junk, query.junk)
    )
    return positive - np.searchsorted(junk, positive)


def ranks_of_names(
    index_of: Mapping[str, int], names: Collection[str], similarities: np.ndarray
) -> dict[str, int]:
    """Return the ranks of images by name, as `ranks_of_indices`.

    Args:
        index_of: index in the database per image name.
        names: image names; names that are not in the database are left out.
        similarities: (N,).

    Returns:
        Rank from 0 per image name.
    """
    known = [name for name in names if name in index_of]
    indices = np.array([index_of[name] for name in known], np.int64)
    return dict(zip(known, ranks_of_indices(indices, similarities).tolist(), strict=True))


def ranks_of_indices(indices: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    """Return the ranks of images by falling similarity, ties in the database's order.

    Args:
        indices: (K,) indices in the database.
        similarities: (N,).

    Returns:
        (K,) int64, from 0.
    """
    values = similarities[indices]
    rising = np.sort(similarities)
    start, stop = (np.searchsorted(rising, values, side=side) for side in ("left", "right"))
    ranks = len(rising) - stop
    for tied in np.flatnonzero(stop - start > 1):  # ties are rare
        ranks[tied] += np.count_nonzero(similarities[: indices[tied]] == values[tied])
    return ranks
