"""Re-ranking in `Search_Images.py query`, and the figures of what it matched."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image, draw_images
from helpers import FAST_INDEX, FAST_OPTIONS, unit
from PIL import Image

import Search_Images
from utils.descriptors.region_vectors import ImageRegions, RegionVectors
from utils.figures.match_figure import GAP, SIDE, draw_boxes, draw_points
from utils.images.batches import Loading
from utils.images.loading import InputImage
from utils.images.local_features import LocalFeatures, count_inliers, local_features
from utils.photo_search import reranking
from utils.photo_search.options import DescribeOptions
from utils.search.reranking.geometry import CHANCE, WEIGHT, Geometry
from utils.search.reranking.k_reciprocal import k_reciprocal
from utils.search.reranking.regions import best_pair, regions
from utils.search.reranking.reranker import FirstImages
from utils.search.reranking.superglobal import superglobal
from utils.weights.networks import load_network


@pytest.fixture
def images(tmp_path):
    """A folder of twelve images."""
    folder = tmp_path / "images"
    draw_images(folder, [f"{number:02}.png" for number in range(12)])
    return folder


@pytest.fixture
def query(tmp_path):
    draw_image(tmp_path / "query.png", 77)
    return tmp_path / "query.png"


def names_of(out):
    return [Path(line.split("\t")[2]).name for line in out.splitlines()]


def first_images(folder, query, count, left_out=()):
    """Return the names and the first images of a query by a product of the descriptors, without some."""
    names = [path.name for path in sorted(folder.iterdir()) if path.name not in left_out]
    rows = Search_Images.describe([*(folder / name for name in names), query], **FAST_OPTIONS)
    order = np.argsort(-(rows[:-1] @ rows[-1]))
    first = FirstImages(0, rows[-1], order[:count], rows[order[:count]])
    return [names[index] for index in order], first


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ([], k_reciprocal),
        (["--rerank-by", "k-reciprocal", "--rerank-neighbours", "3"], lambda first: k_reciprocal(first, 3)),
        (["--rerank-by", "superglobal"], superglobal),
    ],
)
def test_the_first_images_are_sorted_by_the_score(command, indexed, query, words, method):
    ranked, first = first_images(indexed, query, 8)
    order = np.argsort(-method(first), kind="stable")
    expected = [ranked[index] for index in order] + ranked[8:]
    assert expected != ranked
    status, out, err = command("query", query, "--rerank", "8", *words)
    assert status == 0, err
    assert names_of(out) == expected
    similarities = {line.split("\t")[2]: line.split("\t")[1] for line in out.splitlines()}
    plain = command("query", query)[1]
    assert {line.split("\t")[2]: line.split("\t")[1] for line in plain.splitlines()} == similarities
    assert names_of(command("query", query, "--rerank", "8", *words, "--top", "3")[1]) == expected[:3]


def test_an_indexed_query_stays_the_first_and_is_not_compared(command, indexed):
    ranked, first = first_images(indexed, indexed / "04.png", 8, left_out=["04.png"])
    expected = ["04.png", *(ranked[index] for index in np.argsort(-k_reciprocal(first)))]
    assert names_of(command("query", indexed / "04.png", "--rerank", "8")[1])[:9] == expected


def test_the_least_similarity_leaves_the_order(command, indexed, query):
    out = command("query", query, "--rerank", "8")[1]
    similarities = [float(line.split("\t")[1]) for line in out.splitlines()]
    least = sorted(similarities)[6]
    enough = [line.split("\t")[2] for line in out.splitlines() if float(line.split("\t")[1]) >= least]
    again = command("query", query, "--rerank", "8", "--min-similarity", f"{least - 1e-4:.5f}")[1]
    assert [line.split("\t")[2] for line in again.splitlines()] == enough


def test_regions_sort_as_their_scores(command, indexed, query):
    ranked, first = first_images(indexed, query, 6)
    options = DescribeOptions(**FAST_OPTIONS)
    network = load_network(options, (options.pooling,), torch.device("cpu"))
    paths = [InputImage(path) for path in sorted(indexed.iterdir())]
    loading = Loading(64, 1, 0)
    scores = regions(
        first, RegionVectors(network, [InputImage(query)], loading), RegionVectors(network, paths, loading)
    )
    expected = [ranked[index] for index in np.argsort(-scores, kind="stable")] + ranked[6:]
    words = ["--rerank", "6", "--rerank-by", "regions"]
    assert names_of(command("query", query, *words)[1]) == expected
    status, _, err = command("query", query, *words, "--html", "page.html", "--top", "8")
    assert status == 0, err
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count('class="evidence"') == page.count("similarity of the regions") == 6
    assert "The boxes are the region of the query" in page


def test_several_queries_are_compared_although_few_images_are_kept(command, indexed, query, monkeypatch):
    words = ["query", query, indexed, "--rerank", "3", "--rerank-by", "regions"]
    expected = command(*words)[1]
    monkeypatch.setattr(reranking, "KEPT_IMAGES", 2)
    assert command(*words, "--html", "page.html", "--top", "20")[1] == expected
    assert Path("page.html").read_text(encoding="utf-8").count('class="evidence"') == 13 * 3


def test_an_image_that_cannot_be_read_keeps_its_rank(command, indexed, query, caplog):
    ranked, _ = first_images(indexed, query, 6)
    (indexed / ranked[2]).unlink()
    out = command("query", query, "--rerank", "6", "--rerank-by", "regions", "--html", "page.html")[1]
    assert names_of(out)[2] == ranked[2]
    assert f"its regions are not compared: {indexed / ranked[2]} cannot be decoded" in caplog.text
    assert Path("page.html").read_text(encoding="utf-8").count('class="evidence"') == 5


def test_milvus_has_the_same_order(command, images, query):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    for words in ([], ["--milvus", "photos.db"]):
        assert command("index", images, *FAST_INDEX, *words)[0] == 0
    words = ["query", query, images / "03.png", "--rerank", "8", "--top", "5"]
    local = command(*words)
    assert len(local[1].splitlines()) == 10
    assert command(*words, "--milvus", "photos.db")[:2] == local[:2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rerank", "5", "--rerank-by", "regions,geometry"], "rerank_by regions,geometry: a query has one"),
        (["--rerank-by", "regions"], "rerank_by regions has no effect without rerank"),
        (
            ["--rerank", "5", "--rerank-by", "regions", "--rerank-neighbours", "3"],
            "rerank_neighbours 3 has no",
        ),
        (["--rerank", "10001"], "argument --rerank: '10001' is not a whole number from 0 to 10000"),
        (["--rerank", "5", "--rerank-by", "geometry"], "OpenCV, which compares local features, is not"),
    ],
)
def test_an_error_is_one_line_before_any_work(command, indexed, query, monkeypatch, words, message):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr("utils.images.batches.load_pixels", lambda *_: pytest.fail("an image is decoded"))
    status, out, err = command("query", query, *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.fixture
def textured(tmp_path):
    """A folder of images with local features: three of noise, and a part of the query, turned; the query."""
    folder = tmp_path / "textured"
    folder.mkdir()
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)
        if seed:
            image.save(folder / f"{seed}.png")
        else:
            image.save(tmp_path / "query.png")
            image.rotate(20).crop((100, 100, 500, 400)).save(folder / "part.png")
    return folder, tmp_path / "query.png"


def test_geometry_adds_a_bonus_and_draws_its_points(command, textured):
    pytest.importorskip("cv2")
    folder, query = textured
    assert command("index", folder, *FAST_INDEX)[0] == 0
    ranked, first = first_images(folder, query, 4)
    inliers = count_inliers(
        local_features(InputImage(query)), local_features(InputImage(folder / "part.png"))
    )
    assert inliers > 2 * CHANCE
    scores = first.descriptors @ first.query_descriptor
    scores[ranked.index("part.png")] += WEIGHT * (1 - CHANCE / inliers)
    words = ["query", query, "--rerank", "4", "--rerank-by", "geometry", "--html", "page.html"]
    status, out, err = command(*words)
    assert status == 0, err
    assert names_of(out) == [ranked[index] for index in np.argsort(-scores)]
    page = Path("page.html").read_text(encoding="utf-8")
    assert re.findall(r"(\d+) matched points", page) == [str(inliers)]
    assert page.count('class="evidence"') == 1
    assert "Dots and lines are points of the query" in page


def test_matched_points_are_mapped_by_the_homography(monkeypatch):
    pytest.importorskip("cv2")
    rng = np.random.default_rng(3)
    first = LocalFeatures(
        (rng.random((60, 2)) * 800).astype(np.float32), rng.integers(0, 200, (60, 128)).astype(np.uint8)
    )
    homography = np.array([[0.9, -0.2, 40], [0.1, 1.1, -30], [0.0001, 0.0002, 1]])
    mapped = np.c_[first.points, np.ones(60)] @ homography.T
    points = mapped[:, :2] / mapped[:, 2:]
    points[40:] = rng.random((20, 2)) * 800  # wrong matches
    second = LocalFeatures(points.astype(np.float32), first.descriptors)
    features = {"query": first, "image": second, "few": LocalFeatures(points[:9], first.descriptors[:9])}
    monkeypatch.setattr(
        "utils.search.reranking.geometry.local_features", lambda image: features[str(image.path)]
    )
    images = [InputImage(Path(name)) for name in ("query", "image", "few")]
    geometry = Geometry(images[:1], images[1:])
    in_query, in_image = geometry.matched_points(0, 0)
    assert len(in_query) == geometry.inliers(0, [0])[0] == 40
    again = np.c_[in_query, np.ones(40)] @ homography.T
    np.testing.assert_allclose(again[:, :2] / again[:, 2:], in_image, atol=1e-2)
    assert geometry.matched_points(0, 1) is None  # as many as unrelated images have


def test_the_best_pair_adds_most_to_the_similarity():
    rng = np.random.default_rng(0)
    query, image = (
        ImageRegions(
            unit(rng.normal(size=(count, 6))).astype(np.float16), (rng.random(count) + 0.1).astype(np.float16)
        )
        for count in (7, 5)
    )
    parts = {}
    for index, (vector, weight) in enumerate(
        zip(query.vectors.tolist(), query.weights.tolist(), strict=True)
    ):
        products = [
            sum(a * b for a, b in zip(vector, other, strict=True)) for other in image.vectors.tolist()
        ]
        best = max(range(5), key=products.__getitem__)
        parts[index] = (weight * products[best], best, products[best])
    region = max(parts, key=lambda index: parts[index][0])
    pair = best_pair(query, image)
    assert (pair.query_region, pair.image_region) == (region, parts[region][1])
    assert pair.similarity == pytest.approx(parts[region][2], abs=1e-5)


GREY, YELLOW = (90, 90, 90), (255, 212, 0)


def plain(width, height):
    return np.full((height, width, 3), GREY, np.uint8)


def test_boxes_are_drawn_where_they_are():
    figure = draw_boxes(
        plain(240, 160), plain(960, 480), np.array([60, 40, 180, 120]), np.array([480, 0, 960, 480])
    )
    assert figure.size == (480, 320 + GAP + 240)  # one above the other, both 480 wide
    pixels = np.asarray(figure).astype(int)
    yellow = np.argwhere((abs(pixels - YELLOW) < 20).all(axis=2))
    for part, (left, top, right, bottom) in (
        (yellow[yellow[:, 0] < 320], (120, 80, 360, 240)),
        (yellow[yellow[:, 0] >= 320], (240, 326, 480, 566)),
    ):
        assert part.min(axis=0).tolist() == [top, left]
        assert part.max(axis=0).tolist() == [bottom - 1, right - 1]
    assert (pixels[100:200, 150:330] == GREY).all()
    assert (pixels[321:325] == (0x8C, 0x8C, 0x88)).all()


def test_an_upright_image_is_centred_above_a_wide_one():
    whole = [np.array([0, 0, 100, 200]), np.array([0, 0, 600, 300])]
    figure = draw_boxes(plain(100, 200), plain(600, 300), *whole)
    assert figure.size == (480, 480 + GAP + 240)
    pixels = np.asarray(figure).astype(int)
    background = (pixels == (0x8C, 0x8C, 0x88)).all(axis=2)
    assert background[:480, :120].all()
    assert background[:480, 360:].all()
    assert not background[:480, 120:360].any()
    assert not background[480 + GAP :].any()


def test_points_are_drawn_and_connected():
    query, result = plain(100, 200), plain(50, 100)
    figure = draw_points(query, result, np.array([[10, 20.0]]), np.array([[40, 90.0]]))
    assert figure.size == (240 + GAP + 240, SIDE)  # upright images are side by side
    pixels = np.asarray(figure).astype(int)
    start, end = (24, 48), (246 + 192, 432)
    middle = (sum(part) // 2 for part in zip(start, end, strict=True))
    for x, y in (start, end, middle):
        assert (pixels[y - 1 : y + 2, x - 1 : x + 2] != GREY).any()
    changed = (pixels != GREY).any(axis=2)
    changed[:, 240 : 240 + GAP] = False
    rows, columns = np.nonzero(changed)
    assert abs(rows.min() - 48) <= 3
    assert abs(rows.max() - 432) <= 3
    assert abs(columns.min() - 24) <= 3
    assert abs(columns.max() - (246 + 192)) <= 3
    nothing = draw_points(query, result, np.empty((0, 2)), np.empty((0, 2)))
    assert (np.asarray(nothing)[:, :240] == GREY).all()
