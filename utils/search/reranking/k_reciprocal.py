"""Re-ranking by k-reciprocal neighbours: images that are among each other's nearest neighbours.

Zhong et al., "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017. Here, the
neighbours of an image are searched among the query and its first images, not in the entire database.
"""

import numpy as np

from utils.search.reranking.reranker import FirstImages

NEIGHBOURS = 10
"""Number of neighbours that must be mutual, k1; the authors' is 20, for sets with many positives."""

EXPANSION = 0.3
"""Share of k1 that is k2, the number of images whose encodings are averaged; the authors' 6 of 20."""

DISTANCE_WEIGHT = 0.7
"""Weight of the original distance, lambda; the authors' is 0.3. The Jaccard distance has the rest."""


def k_reciprocal(first: FirstImages, neighbours: int | None = None) -> np.ndarray:
    """Return the negative weighted mean of the Jaccard distance and the original distance to the query.

    The neighbours of an image that have it among their own neighbours are its members, with the image itself.
    The members of a member, found among half as many neighbours, are added if more than two thirds of them
    are members already. The encoding of an image is a weight per member, which falls with its distance and
    has the sum 1, averaged over the nearest images. The Jaccard distance compares the encoding of the query
    with the encoding of an image. The original distance is the squared Euclidean distance to the query,
    divided by the largest one to the query.

    Args:
        first: the first images of a query.
        neighbours: number of neighbours that must be mutual; NEIGHBOURS if not given.

    Returns:
        (N,) float64.
    """
    neighbours = NEIGHBOURS if neighbours is None else neighbours
    rows = np.concatenate([first.query_descriptor[np.newaxis], first.descriptors]).astype(np.float64)
    distances = squared_distances(rows)
    largest = distances.max(axis=1, keepdims=True)
    distances /= np.where(largest > 0, largest, 1)
    order = np.argsort(distances, axis=1, kind="stable")
    encodings = np.where(reciprocal_sets(order, neighbours), np.exp(-distances), 0)
    encodings /= encodings.sum(axis=1, keepdims=True)
    encodings = encodings[order[:, : max(round(EXPANSION * neighbours), 1)]].mean(axis=1)
    common = np.minimum(encodings[0], encodings[1:]).sum(axis=1)
    jaccard = 1 - common / (2 - common)  # each encoding has the sum 1
    return -((1 - DISTANCE_WEIGHT) * jaccard + DISTANCE_WEIGHT * distances[0, 1:])


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances of all pairs of rows, (n, n), exactly 0 on the diagonal.

    Args:
        rows: (n, D) float64.
    """
    lengths = (rows**2).sum(axis=1)
    distances = np.maximum(lengths[:, np.newaxis] + lengths - 2 * (rows @ rows.T), 0)
    np.fill_diagonal(distances, 0)
    return distances


def reciprocal_sets(order: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the expanded sets of k-reciprocal neighbours as a matrix, (n, n) bool, one row per image.

    Args:
        order: (n, n) indices of all images by rising distance, per image, the image itself among them.
        neighbours: number of neighbours that must be mutual.
    """
    members = mutual(order, neighbours)
    halves = mutual(order, round(neighbours / 2)).astype(np.float32)
    common = members.astype(np.float32) @ halves.T
    is_contained = members & (3 * common > 2 * halves.sum(axis=1))
    return members | (is_contained.astype(np.float32) @ halves > 0)


def mutual(order: np.ndarray, count: int) -> np.ndarray:
    """Return which pairs are among the `count` nearest neighbours of each other, (n, n) bool; true if equal.

    Args:
        order: (n, n) indices of all images by rising distance, per image, the image itself among them.
        count: number of neighbours without the image itself.
    """
    near = np.zeros(order.shape, bool)
    np.put_along_axis(near, order[:, : count + 1], True, axis=1)
    np.fill_diagonal(near, True)
    return near & near.T
