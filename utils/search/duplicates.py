"""Groups of near duplicates: images that are connected by pairs of similar images, found exactly in blocks.

All pairs of rows are compared by float32 products of blocks, of which the pairs that may be similar enough
are kept. Their similarities are summed in float64, as in `utils.search.exact`. The memory does not grow with
the square of the number of images, also if all are equal.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils.descriptors.rows import StoredRows
from utils.processes import ALONE
from utils.search.block_products import block_products, pair_similarities
from utils.search.exact import rounding_error_bound

ROWS = 1024
"""Images compared with all later images at a time."""

MOST_PAIRS = 2**22
"""Number of pairs in memory above which they are replaced by as few pairs that connect the same images."""


class SimilarPairs(NamedTuple):
    """Pairs of similar images."""

    first: np.ndarray
    """(n,) int64, index of the first image of each pair."""
    second: np.ndarray
    """(n,) int64, index of the second image, which is greater."""
    similarities: np.ndarray
    """(n,) float32, 1 at most."""


class DuplicateGroups(NamedTuple):
    """Groups of near duplicates among N images."""

    groups: list[np.ndarray]
    """Indices of the two or more images of each group, rising; groups in the order of their first images."""
    similarities: np.ndarray
    """(N,) float32, similarity of each image to the most similar other image; minus infinity below the
    threshold."""


def duplicate_groups(database: StoredRows, threshold: float) -> DuplicateGroups:
    """Return the groups of images that are connected by pairs of at least a similarity.

    Two images of a group can be less similar, if images between them connect them. The time grows with the
    square of the number of images.

    Args:
        database: (N, D), of length at most 1.
        threshold: least similarity of two near duplicates.
    """
    count = len(database)
    similarities = np.full(count, -np.inf, np.float32)
    edges = np.empty((2, 0), np.int64)
    for pairs in similar_pairs(database, threshold):
        for indices in (pairs.first, pairs.second):
            np.maximum.at(similarities, indices, pairs.similarities)
        edges = np.concatenate([edges, np.stack([pairs.first, pairs.second])], axis=1)
        if edges.shape[1] > MOST_PAIRS:
            edges = spanning_edges(component_labels(edges, count))
    labels = component_labels(edges, count)
    members = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1)
    order = members[np.argsort(labels[members], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
    return DuplicateGroups(sorted(groups, key=lambda group: int(group[0])), similarities)


def similar_pairs(database: StoredRows, threshold: float) -> Iterator[SimilarPairs]:
    """Yield all pairs of images of at least a similarity, each once.

    Args:
        database: (N, D), of length at most 1.
        threshold: least similarity.
    """
    if not len(database):
        return
    least = threshold - rounding_error_bound(database.shape[1])

    def candidates(indices: np.ndarray, rows: np.ndarray, products: Tensor) -> tuple[np.ndarray, np.ndarray]:
        positions = np.flatnonzero((products >= least).cpu().numpy())
        of_queries, columns = np.divmod(positions, len(indices))
        of_rows = indices[columns]
        is_later = of_rows > of_queries
        return of_queries[is_later], of_rows[is_later]

    starts = range(0, len(database), ROWS)
    for start in tqdm(starts, "pairs", unit="block", disable=True if len(starts) == 1 else None):
        queries = database[start : start + ROWS]
        later = database.selected(slice(start, None))
        for _, _, (of_queries, of_rows) in block_products(
            torch.from_numpy(queries), later, candidates, ALONE
        ):
            exact = pair_similarities(queries.astype(np.float64), of_queries, later, of_rows).clip(max=1)
            similar = exact >= threshold
            yield SimilarPairs(start + of_queries[similar], start + of_rows[similar], exact[similar])


def component_labels(edges: np.ndarray, count: int) -> np.ndarray:
    """Return the number of the connected component of each image, (N,).

    Args:
        edges: (2, n) indices of connected images.
        count: N, the number of images.
    """
    from scipy.sparse import coo_array  # here, since the import takes long
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), shape=(count, count))
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels


def spanning_edges(labels: np.ndarray) -> np.ndarray:
    """Return fewer than N edges, (2, n) int64, that give N images the same components.

    Args:
        labels: (N,) number of the component of each image.
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    edges = np.stack([first[inverse], np.arange(len(labels))])
    return edges[:, edges[0] != edges[1]]
