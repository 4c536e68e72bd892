"""Re-ranking by geometry: local features of the query and of an image that one homography maps to each other.

Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007, re-rank the
first images by the number of inliers. Here, inliers add to the similarity, and few of them count as none.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from utils.images.loading import InputImage, UnreadableImageError
from utils.images.local_features import LocalFeatures, count_inliers, inlier_matches, local_features
from utils.search.reranking.reranker import FirstImages

log = logging.getLogger(__name__)

CHANCE = 10
"""Number of inliers that unrelated images can have; as many or fewer do not change a score."""

WEIGHT = 0.2
"""Weight of infinitely many inliers, relative to the similarity."""


class Geometry:
    """Re-ranking of queries by geometry.

    Features and inliers are computed once and kept in memory: up to 0.14 GB for 1,000 images. Images are
    compared in as many threads as torch uses.

    Args:
        queries: the images of the queries, with their boxes.
        images: the images of the database.
        seed: random seed of the homographies. The result does not depend on the number of threads.
    """

    def __init__(self, queries: Sequence[InputImage], images: Sequence[InputImage], seed: int = 0) -> None:
        self._queries = queries
        self._images = images
        self._seed = seed
        self._query_features: dict[int, LocalFeatures | None] = {}
        self._image_features: dict[int, LocalFeatures | None] = {}
        self._inliers: dict[tuple[int, int], int | None] = {}

    def __call__(self, first: FirstImages) -> np.ndarray:
        """Return the similarity of each image plus a bonus for its inliers, (N,) float64.

        The bonus is WEIGHT (1 - CHANCE / inliers), and 0 for CHANCE or fewer inliers: no image loses by its
        matches. The similarities are sorted, so that the order of the search, for example by diffusion,
        remains if no image has a bonus. NaN stands for an unreadable image, and for all images if the query
        is unreadable.
        """
        inliers = self.inliers(first.query, first.indices.tolist())
        similarities = np.sort(first.descriptors.astype(np.float64) @ first.query_descriptor)[::-1]
        bonus = WEIGHT * (1 - CHANCE / np.maximum(inliers, CHANCE))
        return np.asarray(similarities + bonus)

    def inliers(self, query: int, indices: Sequence[int]) -> np.ndarray:
        """Return the number of inliers of each image, (N,) float64, NaN if it cannot be counted.

        Args:
            query: index of the query.
            indices: indices of the images.
        """
        pending = [index for index in indices if (query, index) not in self._inliers]
        of_query = self._features_of_query(query)

        def count(index: int) -> int | None:
            of_image = self._features_of_image(index)
            if of_query is None or of_image is None:
                return None
            return count_inliers(of_query, of_image, self._seed)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            counts = pool.map(count, pending)
            self._inliers |= {(query, index): number for index, number in zip(pending, counts, strict=True)}
        return np.array([self._inliers[query, index] for index in indices], np.float64)

    def matched_points(self, query: int, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the inliers of an image if it has a bonus, else None.

        Returns:
            Points in the query and in the image, both (n, 2) float32, x and y in pixels of the image after
            resizing to `local_features.LONGER_SIDE` and cropping to its box.
        """
        of_query, of_image = self._features_of_query(query), self._features_of_image(index)
        if of_query is None or of_image is None:
            return None
        matches = inlier_matches(of_query, of_image, self._seed)
        if len(matches) <= CHANCE:
            return None
        return of_query.points[matches[:, 0]], of_image.points[matches[:, 1]]

    def _features_of_query(self, query: int) -> LocalFeatures | None:
        if query not in self._query_features:
            self._query_features[query] = features_or_note(self._queries[query])
        return self._query_features[query]

    def _features_of_image(self, index: int) -> LocalFeatures | None:
        if index not in self._image_features:
            self._image_features[index] = features_or_note(self._images[index])
        return self._image_features[index]


def features_or_note(image: InputImage) -> LocalFeatures | None:
    """Return the local features of an image; None, with a note, if it is unreadable."""
    try:
        return local_features(image)
    except UnreadableImageError as error:
        log.warning("note: its local features are not compared: %s", error)
        return None
