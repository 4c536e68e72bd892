"""The interface of all re-rankings, and its application to the results of a search."""

from typing import NamedTuple, Protocol

import numpy as np

from utils.descriptors.rows import Rows
from utils.search.exact import Found


class FirstImages(NamedTuple):
    """The first N images of one query, in the order of their ranks."""

    query: int
    """Index of the query."""
    query_descriptor: np.ndarray
    """(D,) float32."""
    indices: np.ndarray
    """(N,) int64, indices in the database."""
    descriptors: np.ndarray
    """(N, D) float32."""


class Reranker(Protocol):
    """A re-ranking of the first images of one query."""

    def __call__(self, first: FirstImages) -> np.ndarray:
        """Return a score per image, (N,).

        A higher score ranks first, equal scores keep their order, and NaN leaves an image at its rank.
        """


def rerank(found: Found, queries: np.ndarray, database: Rows, count: int, reranker: Reranker) -> Found:
    """Return the results of a search after a re-ranking of the first images of each query.

    Only ranks less than `count` change.

    Args:
        found: results of the search, with at least min(count, number of images) first images per query.
        queries: (Q, D), descriptors that the search used.
        database: (N, D).
        count: number of images to re-rank per query.
        reranker: the re-ranking. Images that an approximate search did not retrieve are not given to it.

    Returns:
        Results in the new order. Each image keeps the similarity that the search gave it.
    """
    indices, similarities = found.indices.copy(), found.similarities.copy()
    ranks = []
    for query, of_labelled in enumerate(found.ranks):
        retrieved = int(np.isfinite(similarities[query, :count]).sum())
        images = indices[query, :retrieved]
        first = FirstImages(query, queries[query], images, database[images])
        order = order_by_score(reranker(first))
        indices[query, :retrieved] = images[order]
        similarities[query, :retrieved] = similarities[query, order]
        new_ranks = of_labelled.copy()
        moved = of_labelled < retrieved
        new_ranks[moved] = np.argsort(order)[of_labelled[moved]]  # argsort inverts the permutation
        ranks.append(new_ranks)
    return Found(indices, similarities, ranks)


def order_by_score(scores: np.ndarray) -> np.ndarray:
    """Return the indices of images by falling score, (N,) int64; images with NaN keep their index.

    Args:
        scores: (N,), as a `Reranker` returns them.
    """
    order = np.arange(len(scores))
    scored = np.flatnonzero(~np.isnan(scores))
    order[scored] = scored[np.argsort(-scores[scored], kind="stable")]
    return order
