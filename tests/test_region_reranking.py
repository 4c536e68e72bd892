"""Re-ranking by regions, compared with loops; region vectors, compared with the descriptor of the network."""

import logging

import numpy as np
import pytest
import torch
from conftest import draw_image
from helpers import network_of, unit

from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.descriptors.region_vectors import ImageRegions, RegionVectors
from utils.images.batches import Loading
from utils.images.loading import InputImage, load_pixels
from utils.search.reranking.regions import WEIGHT, region_similarities, regions
from utils.search.reranking.reranker import FirstImages

LOADING = Loading(64, 4, 0)


def random_regions(count, seed, dimensions=8):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((count, dimensions)))
    return ImageRegions(vectors.astype(np.float16), (rng.random(count) + 0.1).astype(np.float16))


def many_to_one(query, image):
    total = 0.0
    for vector, weight in zip(query.vectors.tolist(), query.weights.tolist(), strict=True):
        best = max(sum(a * b for a, b in zip(vector, other, strict=True)) for other in image.vectors.tolist())
        total += weight * best
    return total / sum(query.weights.tolist())


def test_similarities_of_regions_equal_loops():
    query, images = random_regions(5, 0), [random_regions(count, count) for count in (1, 7, 3)]
    expected = [many_to_one(query, image) for image in images]
    np.testing.assert_allclose(region_similarities(query, images), expected, atol=1e-6)


def first_images(count):
    rows = unit(np.random.default_rng(9).standard_normal((count, 8))).astype(np.float32)
    return FirstImages(1, rows[0], np.arange(count) + 10, rows)


def test_the_score_is_the_sum_of_both_similarities_and_nan_for_unreadable_images():
    first = first_images(4)
    of_queries = [random_regions(2, 1), random_regions(3, 2)]
    of_images = {10: random_regions(4, 3), 11: None, 12: random_regions(2, 4), 13: random_regions(1, 5)}
    scores = regions(
        first,
        queries=lambda indices: [of_queries[index] for index in indices],
        database=lambda indices: [of_images[index] for index in indices],
    )
    for position, index in enumerate(first.indices):
        image = of_images[index]
        if image is None:
            assert np.isnan(scores[position])
        else:
            similarity = float(first.descriptors[position] @ first.query_descriptor)
            expected = similarity + WEIGHT * many_to_one(of_queries[1], image)
            assert scores[position] == pytest.approx(expected, abs=1e-5)


def test_all_images_keep_their_ranks_if_nothing_is_readable():
    first = first_images(3)
    nothing = [None] * 3
    scores = regions(first, queries=lambda _: [None], database=lambda _: [random_regions(2, 0)] * 3)
    assert np.isnan(scores).all()
    scores = regions(first, queries=lambda _: [random_regions(2, 0)], database=lambda _: nothing)
    assert np.isnan(scores).all()


@pytest.fixture
def network():
    torch.manual_seed(0)
    attention = ContextAwareRegionalAttention(3)
    return network_of(
        ["rmac", "ra"], torch.nn.Conv2d(3, 3, 8, stride=8), levels=2, stride=8, attention=attention
    )


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for seed, path in enumerate(paths):
        draw_image(path, seed)
    return [InputImage(path) for path in paths]


def test_the_weighted_mean_of_the_regions_is_the_descriptor(network, images):
    vectors = RegionVectors(network, images, LOADING, pooling=1)
    one, other = vectors([2, 0])
    assert one.vectors.shape[1] == 3
    assert len(one.vectors) == len(one.weights) > 1
    for index, found in ((2, one), (0, other)):
        with torch.inference_mode():
            pixels = load_pixels(images[index], LOADING.longer_side)
            expected = network(network.backbone.prepare(pixels[None]))[0, 1].numpy()
        mean = found.weights.astype(np.float64) @ found.vectors.astype(np.float64)
        np.testing.assert_allclose(unit(mean), expected, atol=2e-3)  # float16


def test_each_image_is_described_once_and_an_unreadable_image_is_noted(network, images, caplog):
    images[1].path.write_bytes(b"not an image")
    vectors = RegionVectors(network, images, LOADING)
    with caplog.at_level(logging.WARNING):
        first = vectors([0, 1])
    assert first[1] is None
    assert [record.message.startswith("note: ") for record in caplog.records] == [True]
    assert "b.png cannot be decoded" in caplog.text
    images[0].path.unlink()
    again = vectors([1, 0])
    assert again[0] is None
    assert again[1] is first[0]
