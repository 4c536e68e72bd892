"""Scores of all queries, computed from the ranks of their labelled images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.scoring.compute_ap import average_precision

Ranks = Mapping[str, int]
"""Ranks from 0, in the ranking of one query, of at least its labelled images in the database, by name."""


def labelled_images(data: RetrievalDataset, names: Sequence[str]) -> list[dict[str, int]]:
    """Return the index in the database of each labelled image by name, per query.

    Args:
        data: the data set. The labels of a query are the labels of all its protocols.
        names: names of the database images; labelled images that are not among them are left out.
    """
    index_of = {name: index for index, name in enumerate(names)}
    label_names: dict[str, set[str]] = {query.name: set() for query in data.queries}
    for queries in data.protocols.values() or [data.queries]:
        for query in queries:
            label_names[query.name] |= query.good | query.ok | query.junk
    return [
        {name: index_of[name] for name in sorted(of_query) if name in index_of}
        for of_query in label_names.values()
    ]


def ranks_by_name(labelled: Sequence[Mapping[str, int]], ranks: Sequence[np.ndarray]) -> list[dict[str, int]]:
    """Return the ranks of the labelled images by name, per query.

    Args:
        labelled: labelled images per query, as returned by `labelled_images`.
        ranks: their ranks per query, in the same order.
    """
    return [
        dict(zip(names, of_query.tolist(), strict=True))
        for names, of_query in zip(labelled, ranks, strict=True)
    ]


def score_queries(
    queries: Sequence[Query],
    ranks: Sequence[Ranks],
    score: Callable[[np.ndarray, int], float] = average_precision,
) -> dict[str, float]:
    """Return the score per query, by default its average precision.

    The average precision equals `compute_ap` of a ranking of names. A score only needs the ranks of the
    labelled images.

    Args:
        queries: queries with labels. An image that is both positive and junk is junk, but still counts as a
            positive in recall.
        ranks: ranks of the labelled images, per query.
        score: function of the ranks of the positives in a ranking without junk and of the number of all
            positives.

    Returns:
        The score per query name; the average precision is 0..1, or NaN if no positive is listed.
    """
    return {
        query.name: score(positive_ranks(query, of_query), len(query.good | query.ok))
        for query, of_query in zip(queries, ranks, strict=True)
    }


def positive_ranks(query: Query, ranks: Ranks) -> np.ndarray:
    """Return the ranks of a query's positives in its ranking without junk.

    Args:
        query: query with labels; a positive that is also junk is left out.
        ranks: ranks in the ranking with junk.

    Returns:
        (K,) int64, from 0, rising, for the K positives that are in the database and not junk.
    """
    positive, junk = (
        np.sort(np.array([ranks[name] for name in names if name in ranks], np.int64))
        for names in ((query.good | query.ok) - query.junk, query.junk)
    )
    return positive - np.searchsorted(junk, positive)
