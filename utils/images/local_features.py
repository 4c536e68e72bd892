"""Local features of images and their geometric verification, with the optional package OpenCV.

SIFT and the ratio test: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004. Square
roots of SIFT descriptors: Arandjelović and Zisserman, "Three things everyone should know to improve object
retrieval", CVPR 2012. Homographies: Barath et al., "MAGSAC++, a fast, reliable and accurate robust
estimator", CVPR 2020, as OpenCV implements it.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np

from utils.errors import UserError
from utils.images.loading import InputImage, load_pixels

LONGER_SIDE = 1024
"""Longer side of the images in which features are detected, in pixels."""

POINTS = 1000
"""Maximum number of features per image."""

RATIO = 0.85
"""Greatest ratio of the distances to the nearest and to the second nearest feature of a match."""

LEAST_MATCHES = 5
"""Least number of matches for a homography: four determine it."""

ERROR = 5.0
"""Greatest distance, in pixels, of an inlier from the point that the homography maps it to."""

ITERATIONS = 2000
CONFIDENCE = 0.999


class LocalFeatures(NamedTuple):
    """The local features of an image."""

    points: np.ndarray
    """(K, 2) float32, x and y in pixels of the resized image."""
    descriptors: np.ndarray
    """(K, 128) uint8, SIFT."""


def opencv() -> ModuleType:
    """Import OpenCV.

    Raises:
        UserError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "OpenCV, which compares local features, is not installed: pip install opencv-python-headless, "
            "or leave out the re-ranking by geometry"
        ) from error
    return cv2


def local_features(image: InputImage) -> LocalFeatures:
    """Detect the POINTS strongest SIFT features of an image, or of the part inside its box.

    Raises:
        UserError: the image is unreadable, or OpenCV is not installed.
    """
    cv2 = opencv()
    grey = cv2.cvtColor(load_pixels(image, LONGER_SIDE).numpy(), cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT_create(nfeatures=POINTS).detectAndCompute(grey, None)
    if not keypoints:
        return LocalFeatures(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32)
    return LocalFeatures(
        points[:POINTS], descriptors[:POINTS].astype(np.uint8)
    )  # whole numbers from 0 to 255


def match(first: LocalFeatures, second: LocalFeatures) -> np.ndarray:
    """Return the matches that pass the ratio test.

    Descriptors are compared by the Euclidean distance of the square roots of their values, divided by the
    sum. If several features of the first image match one of the second, the nearest is kept.

    Args:
        first: features of the first image.
        second: features of the second image.

    Returns:
        (M, 2) int64, index in the first and in the second image.
    """
    if not len(first.points) or len(second.points) < 2:
        return np.empty((0, 2), np.int64)
    similarities = square_roots(first.descriptors) @ square_roots(second.descriptors).T
    nearest = np.argpartition(-similarities, 1, axis=1)[:, :2]
    distances = np.sqrt(np.maximum(2 - 2 * np.take_along_axis(similarities, nearest, axis=1), 0))
    passed = np.flatnonzero(distances[:, 0] < RATIO * distances[:, 1])
    passed = passed[np.argsort(distances[passed, 0], kind="stable")]
    second_indices, kept = np.unique(nearest[passed, 0], return_index=True)
    return np.stack([passed[kept], second_indices], axis=1)


def square_roots(descriptors: np.ndarray) -> np.ndarray:
    """Return the square roots of descriptors of sum 1, (K, 128) float32, each of Euclidean length 1 or 0."""
    values = descriptors.astype(np.float32)
    return np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1))


def count_inliers(first: LocalFeatures, second: LocalFeatures, seed: int = 0) -> int:
    """Return the number of `inlier_matches`."""
    return len(inlier_matches(first, second, seed))


def inlier_matches(first: LocalFeatures, second: LocalFeatures, seed: int = 0) -> np.ndarray:
    """Return the matches that the best homography from the first to the second image explains.

    Args:
        first: features of the first image.
        second: features of the second image.
        seed: random seed of the samples.

    Returns:
        (n, 2) int64, index in the first and in the second image; n is 0 if there is no homography.
    """
    matches = match(first, second)
    if len(matches) < LEAST_MATCHES:
        return matches[:0]
    cv2 = opencv()
    parameters = cv2.UsacParams()
    parameters.score = cv2.SCORE_METHOD_MAGSAC
    parameters.loMethod = cv2.LOCAL_OPTIM_SIGMA
    parameters.sampler = cv2.SAMPLING_UNIFORM
    parameters.final_polisher = cv2.MAGSAC
    parameters.threshold, parameters.maxIterations, parameters.confidence = ERROR, ITERATIONS, CONFIDENCE
    parameters.randomGeneratorState = seed
    source, target = first.points[matches[:, 0]], second.points[matches[:, 1]]
    homography, inliers = cv2.findHomography(source, target, parameters)
    return matches[:0] if homography is None else matches[inliers.ravel() != 0]
