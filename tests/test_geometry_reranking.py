"""Re-ranking by geometry: matches by loops, homographies by hand, and images that are warped copies."""

import logging
import math
import sys

import numpy as np
import pytest
from PIL import Image

from utils.errors import UserError
from utils.images.loading import InputImage
from utils.images.local_features import LocalFeatures, count_inliers, local_features, match
from utils.search.exact import Found
from utils.search.reranking.geometry import CHANCE, WEIGHT, Geometry
from utils.search.reranking.reranker import FirstImages, rerank

cv2 = pytest.importorskip("cv2")

SIDE = 320
"""Longer side of the images in these tests, to save time."""


def random_features(count, seed):
    rng = np.random.default_rng(seed)
    points = rng.random((count, 2)).astype(np.float32) * 800
    return LocalFeatures(points, rng.integers(0, 200, (count, 128)).astype(np.uint8))


def match_by_loops(first, second, ratio=0.85):
    def distance(one, other):
        one, other = one.tolist(), other.tolist()
        return math.sqrt(
            sum(
                (math.sqrt(a / sum(one)) - math.sqrt(b / sum(other))) ** 2
                for a, b in zip(one, other, strict=True)
            )
        )

    best = {}
    for index, descriptor in enumerate(first.descriptors):
        distances = sorted((distance(descriptor, other), j) for j, other in enumerate(second.descriptors))
        (nearest, j), (next_nearest, _) = distances[:2]
        if nearest < ratio * next_nearest and (j not in best or nearest < best[j][0]):
            best[j] = (nearest, index)
    return sorted((index, j) for j, (_, index) in best.items())


def test_matches_equal_loops():
    second = random_features(30, 0)
    rng = np.random.default_rng(1)
    chosen = rng.integers(0, 30, 25)  # some twice
    noise = rng.integers(0, 40, (25, 128))
    near = np.minimum(second.descriptors[chosen] + noise, 255).astype(np.uint8)
    others = random_features(15, 2)
    first = LocalFeatures(
        np.concatenate([second.points[chosen], others.points]), np.concatenate([near, others.descriptors])
    )
    expected = match_by_loops(first, second)
    assert sorted(map(tuple, match(first, second).tolist())) == expected
    assert 10 < len(expected) < len(chosen)


def test_nothing_matches_too_few_features():
    few, many = random_features(1, 0), random_features(9, 1)
    nothing = LocalFeatures(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    assert match(many, few).shape == match(nothing, many).shape == (0, 2)
    assert count_inliers(many, few) == count_inliers(nothing, nothing) == 0


@pytest.mark.parametrize("seed", [0, 7])
def test_inliers_are_the_matches_that_a_homography_maps(seed):
    first = random_features(90, 3)
    homography = np.array([[0.9, -0.2, 40], [0.1, 1.1, -30], [0.0001, 0.0002, 1]])
    mapped = np.c_[first.points, np.ones(90)] @ homography.T
    points = mapped[:, :2] / mapped[:, 2:]
    points[60:] = np.random.default_rng(4).random((30, 2)) * 800  # 30 wrong matches
    second = LocalFeatures(points.astype(np.float32), first.descriptors)
    by_chance = (np.linalg.norm(mapped[60:, :2] / mapped[60:, 2:] - points[60:], axis=1) < 20).sum()
    assert by_chance == 0
    assert count_inliers(first, second, seed) == 60


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A query; database: noise, a rotated and smaller copy of the query, grey, and a missing file."""
    monkeypatch.setattr("utils.images.local_features.LONGER_SIDE", SIDE)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    query = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    other = Image.fromarray(rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)).resize((640, 480))
    copy = query.rotate(12, expand=True).resize((500, 400))
    for name, image in (("query", query), ("other", other), ("copy", copy)):
        image.save(tmp_path / f"{name}.png")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "grey.png")
    database = [InputImage(tmp_path / f"{name}.png") for name in ("other", "copy", "grey", "missing")]
    return [InputImage(tmp_path / "query.png")], database


def first_images(order):
    """Return first images with the similarities 0.4, 0.3, 0.2 and 0.1 in the given order."""
    descriptors = np.array([[0.4, 0], [0.3, 0], [0.2, 0], [0.1, 0]], np.float32)
    return FirstImages(0, np.array([1, 0], np.float32), np.array(order), descriptors)


def test_a_copy_gains_and_no_image_loses(images, caplog):
    queries, database = images
    geometry = Geometry(queries, database)
    with caplog.at_level(logging.WARNING):
        scores = geometry(first_images([0, 2, 3, 1]))
    inliers = count_inliers(local_features(queries[0]), local_features(database[1]))
    assert inliers > 3 * CHANCE
    assert scores[0] == pytest.approx(0.4)
    assert scores[1] == pytest.approx(0.3)
    assert np.isnan(scores[2])
    assert scores[3] == pytest.approx(0.1 + WEIGHT * (1 - CHANCE / inliers))
    assert "missing.png cannot be decoded" in caplog.text
    np.testing.assert_array_equal(Geometry(queries, database)(first_images([0, 2, 3, 1])), scores)


def test_an_unreadable_image_keeps_its_rank(images):
    queries, database = images
    found = Found(np.array([[3, 0, 1]]), np.zeros((1, 3), np.float32), [np.array([0, 1, 2])])
    descriptors = np.array([[0.3, 0], [0.25, 0], [0.2, 0], [0.4, 0]], np.float32)
    new = rerank(found, np.array([[1, 0]], np.float32), descriptors, 3, Geometry(queries, database))
    assert new.indices.tolist() == [[3, 1, 0]]
    assert new.ranks[0].tolist() == [0, 2, 1]


def test_the_order_of_the_search_remains_without_inliers(images):
    queries, database = images
    first = first_images([0, 2, 0, 2])
    turned = first._replace(descriptors=first.descriptors[::-1])  # rising similarities, as after diffusion
    scores = Geometry(queries, database)(turned)
    np.testing.assert_allclose(scores, [0.4, 0.3, 0.2, 0.1], atol=1e-6)


def test_each_pair_is_compared_once(images, monkeypatch):
    queries, database = images
    geometry = Geometry(queries, database)
    once = geometry.inliers(0, [0, 1])
    monkeypatch.setattr("utils.search.reranking.geometry.count_inliers", lambda *_: pytest.fail("again"))
    monkeypatch.setattr("utils.search.reranking.geometry.local_features", lambda _: pytest.fail("again"))
    np.testing.assert_array_equal(geometry.inliers(0, [1, 0]), once[::-1])


def test_an_unreadable_query_changes_nothing(images):
    queries, database = images
    queries[0].path.unlink()
    assert np.isnan(Geometry(queries, database)(first_images([0, 1, 2, 3]))).all()


def test_features_inside_the_box_of_a_query(images):
    queries, _ = images
    box = queries[0]._replace(box=(0, 0, 320, 240))
    points = local_features(box).points
    assert 0 < len(points) < len(local_features(queries[0]).points)
    assert (points <= np.array([320, 240]) * SIDE / 640).all()


def test_a_missing_opencv_is_one_error_before_any_work(monkeypatch, images):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        local_features(images[0][0])
