"""Re-ranking by regions: find each region of the query anywhere in each of the first images.

Razavian et al., "Visual instance retrieval with deep convolutional networks", arXiv:1412.6574, 2014, match
the patches of a query with patches of an image at other positions and scales (spatial search). Tolias, Sicre
and Jégou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016, localise an
object by regions. Here, the regions are those of the descriptor, weighted by its attention.
"""

from typing import NamedTuple

import numpy as np

from utils.descriptors.region_vectors import ImageRegions, RegionsOf
from utils.search.reranking.reranker import FirstImages

WEIGHT = 2.0
"""Weight of the similarity of the regions; the similarity of the descriptors has the weight 1."""


class RegionPair(NamedTuple):
    """A region of a query and the most similar region of an image."""

    query_region: int
    """Index of the region of the query."""
    image_region: int
    """Index of the region of the image."""
    similarity: float


class RegionReranking:
    """Re-ranking of queries by regions.

    Args:
        queries: function that returns the regions of queries.
        database: function that returns the regions of images.
    """

    def __init__(self, queries: RegionsOf, database: RegionsOf) -> None:
        self._queries = queries
        self._database = database

    def __call__(self, first: FirstImages) -> np.ndarray:
        """Return the scores of `regions`."""
        return regions(first, self._queries, self._database)

    def best_pair(self, query: int, index: int) -> RegionPair | None:
        """Return the `best_pair` of a query and an image; None if one is unreadable.

        Args:
            query: index of the query.
            index: index of the image.
        """
        (of_query,), (of_image,) = self._queries([query]), self._database([index])
        return None if of_query is None or of_image is None else best_pair(of_query, of_image)


def regions(first: FirstImages, queries: RegionsOf, database: RegionsOf) -> np.ndarray:
    """Return the sum of the similarity of the descriptors and of the similarity of the regions.

    Args:
        first: the first images of a query.
        queries: function that returns the regions of queries.
        database: function that returns the regions of images.

    Returns:
        (N,) float32, NaN for an unreadable image; all NaN if the query is unreadable.
    """
    scores = np.full(len(first.indices), np.nan, np.float32)
    of_query = queries([first.query])[0]
    of_images = database(first.indices.tolist())
    readable = [index for index, one in enumerate(of_images) if one is not None]
    if of_query is not None and readable:
        compared = [one for one in of_images if one is not None]
        to_query = first.descriptors[readable] @ first.query_descriptor
        scores[readable] = to_query + WEIGHT * region_similarities(of_query, compared)
    return scores


def region_similarities(query: ImageRegions, images: list[ImageRegions]) -> np.ndarray:
    """Return the many-to-one similarity of a query to each image.

    It is the weighted mean, over the regions of the query, of the similarity to the most similar region of
    the image. The weights are those of the attention.

    Args:
        query: the regions of the query.
        images: the regions of N images, each with one or more regions.

    Returns:
        (N,) float32.
    """
    vectors = np.concatenate([image.vectors for image in images]).astype(np.float32)
    starts = np.cumsum([0, *(len(image.weights) for image in images[:-1])])
    best = np.maximum.reduceat(query.vectors.astype(np.float32) @ vectors.T, starts, axis=1)
    weights = query.weights.astype(np.float32)
    similarities: np.ndarray = (weights / weights.sum()) @ best
    return similarities


def best_pair(query: ImageRegions, image: ImageRegions) -> RegionPair:
    """Return the pair of regions that adds most to the similarity of `region_similarities`."""
    similarities = query.vectors.astype(np.float32) @ image.vectors.astype(np.float32).T
    best = similarities.argmax(axis=1)
    region = int((query.weights.astype(np.float32) * similarities.max(axis=1)).argmax())
    return RegionPair(region, int(best[region]), float(similarities[region, best[region]]))
