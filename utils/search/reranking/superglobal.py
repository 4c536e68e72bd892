"""SuperGlobal's re-ranking: refine the descriptors of the first images by their neighbours among them.

Shao et al., "Global features are all you need for image retrieval and reranking", ICCV 2023, section 3.3.
Only the descriptors of the query and of the first images are needed.
"""

import numpy as np

from utils.search.reranking.reranker import FirstImages

NEIGHBOURS = 3
"""Number of neighbours that refine an image, K; the authors' is 9, for sets with many positives."""

BETA = 0.15
"""Weight of a neighbour of similarity 1 (the authors')."""


def superglobal(first: FirstImages, neighbours: int | None = None) -> np.ndarray:
    """Return the mean of two similarities of the refined descriptors: to the query and to an expanded query.

    An image is refined by the weighted mean of its descriptor, with weight 1, and of the descriptors of its
    nearest neighbours among the first images, with weights BETA times their similarity. Negative similarities
    count as 0. The expanded query is the maximum per dimension over the refined descriptors of the
    `neighbours` + 1 images that are then most similar to the query. As in the authors' program, the means and
    the maximum are not normalised, and the query is not part of the maximum.

    Args:
        first: the first images of a query.
        neighbours: number of neighbours that refine an image; NEIGHBOURS if not given.

    Returns:
        (N,) float64.
    """
    neighbours = NEIGHBOURS if neighbours is None else neighbours
    descriptors = first.descriptors.astype(np.float64)
    if not len(descriptors):
        return np.empty(0)
    refined = refine(descriptors, neighbours)
    to_query = refined @ first.query_descriptor.astype(np.float64)
    nearest = np.argsort(-to_query, kind="stable")[: neighbours + 1]
    expanded = refined[nearest].max(axis=0)
    return (to_query + refined @ expanded) / 2


def refine(descriptors: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the weighted mean of each descriptor and its nearest neighbours, (N, D) float64.

    Args:
        descriptors: (N, D) float64.
        neighbours: number of neighbours; N - 1 if it is greater.
    """
    similarities = descriptors @ descriptors.T
    np.fill_diagonal(similarities, -np.inf)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, : min(neighbours, len(descriptors) - 1)]
    weights = np.zeros_like(similarities)
    neighbour_weights = BETA * np.maximum(np.take_along_axis(similarities, nearest, axis=1), 0)
    np.put_along_axis(weights, nearest, neighbour_weights, axis=1)
    np.fill_diagonal(weights, 1)
    return (weights @ descriptors) / weights.sum(axis=1, keepdims=True)
