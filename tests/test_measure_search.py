"""Search, expansion, augmentation and diffusion, compared with arithmetic on descriptors.npz."""

import json
import sys

import numpy as np
import pytest
from conftest import draw_image, write_query
from helpers import score_lines, unit

from utils.search.reranking.k_reciprocal import k_reciprocal
from utils.search.reranking.reranker import FirstImages
from utils.search.reranking.superglobal import superglobal

NAMES = list("abcdefghijkl")


@pytest.fixture
def images(dataset):
    """Twelve images, and a query per image, all with one box, for which only that image is good."""
    for seed, name in enumerate("efghijkl", start=10):
        draw_image(dataset / "jpg" / f"{name}.png", seed)
    for path in (dataset / "lab").iterdir():
        path.unlink()
    for name in NAMES:
        write_query(dataset, f"only_{name}", "a 0 0 40 40", good=name)
    return dataset


@pytest.fixture
def evaluate(measure, images, tmp_path):
    """A function that evaluates with a line of options.

    It returns results.json, the printed text, and the descriptors of the box and of the database.
    """

    def run(options):
        status, out, err = measure("--output", tmp_path / "out", *options.split())
        assert status == 0, err
        with np.load(tmp_path / "out" / "descriptors.npz") as arrays:
            assert arrays["names"].tolist() == NAMES
            query, database = arrays["query_descriptors"][0], arrays["descriptors"]
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        return results, out, query.astype(np.float64), database.astype(np.float64)

    return run


def ranks_of(precisions):
    """Return the rank of each image, from the average precision of the query for which only it is good.

    At rank r, from 0, that is the trapezoid under the precisions 0 and 1 / (r + 1), or 1 at rank 0.
    """
    values = [precisions[f"only_{name}"] for name in NAMES]
    return [0 if value == 1 else round(1 / (2 * value)) - 1 for value in values]


def ranks_by(similarities):
    return np.argsort(np.argsort(-similarities)).tolist()


def expanded(query, database, count, alpha):
    similar = database @ query
    first = np.argsort(-similar)[:count]
    return unit(query + (np.maximum(similar[first], 0) ** alpha) @ database[first])


def augmented(database, count):
    rows = []
    for index, row in enumerate(database):
        others = [other for other in np.argsort(-(database @ row)) if other != index][:count]
        weights = [(count + 1 - rank) / (count + 1) for rank in range(1, count + 1)]
        rows.append(row + np.array(weights) @ database[others])
    return unit(np.array(rows))


def diffused(similar, database, count, alpha, start=10, power=3):
    """Return the solution f of (I - alpha S) f = y, dense and solved directly."""
    all_similar = database @ database.T
    np.fill_diagonal(all_similar, -np.inf)
    nearest = np.zeros(all_similar.shape, bool)
    np.put_along_axis(nearest, np.argsort(-all_similar, axis=1)[:, :count], True, axis=1)
    graph = np.where(nearest & nearest.T, np.maximum(all_similar, 0) ** power, 0)
    degrees = graph.sum(axis=1)
    scales = np.where(degrees > 0, 1 / np.sqrt(np.where(degrees > 0, degrees, 1)), 0)
    system = np.eye(len(graph)) - alpha * scales[:, None] * graph * scales
    y = np.zeros(len(graph))
    first = np.argsort(-similar)[:start]
    y[first] = np.maximum(similar[first], 0) ** power
    return np.linalg.solve(system, y)


def test_plain_scores_follow_the_similarities(evaluate):
    results, _, query, database = evaluate("--qe 0")
    assert ranks_of(results["AP"]) == ranks_by(database @ query)
    assert sorted(ranks_of(results["AP"])) == list(range(12))


@pytest.mark.parametrize("alpha", [0, 3, 30])
def test_alpha_is_the_exponent_of_the_weights_of_expansion(evaluate, alpha):
    results, _, query, database = evaluate(f"--qe 4 --alpha {alpha}")
    again = database @ expanded(query, database, 4, alpha)
    assert ranks_of(results["AP_query_expansion"]) == ranks_by(again)
    assert ranks_of(results["AP"]) == ranks_by(database @ query)
    # Alpha changes the ranking of these images.
    rankings = [ranks_by(database @ expanded(query, database, 4, other)) for other in (0, 30)]
    assert rankings[0] != rankings[1]


def test_database_augmentation_comes_before_any_search(evaluate):
    results, _, query, database = evaluate("--dba 3 --qe 2")
    joined = augmented(database, 3)
    assert ranks_of(results["AP"]) == ranks_by(joined @ query)
    assert ranks_by(joined @ query) != ranks_by(database @ query)
    assert ranks_of(results["AP_query_expansion"]) == ranks_by(joined @ expanded(query, joined, 2, 0))


@pytest.mark.parametrize(("count", "share"), [(4, 0.9), (6, 0.3)])
def test_diffusion_starts_from_the_plain_search_where_there_is_no_expansion(evaluate, count, share):
    results, _, query, database = evaluate(f"--qe 0 --diffusion {count} --diffusion-alpha {share}")
    scores = diffused(database @ query, database, count, share)
    assert ranks_of(results["AP_diffusion"]) == ranks_by(scores)
    assert ranks_by(scores) != ranks_by(database @ query)
    assert results["AP_query_expansion"] is None


def test_augmentation_expansion_and_diffusion_are_applied_in_turn(evaluate):
    results, out, query, database = evaluate("--dba 2 --qe 3 --alpha 2 --diffusion 5 --diffusion-alpha 0.8")
    joined = augmented(database, 2)
    again = joined @ expanded(query, joined, 3, 2)
    scores = diffused(again, joined, 5, 0.8)
    ranks = [ranks_of(results[key]) for key in ("AP", "AP_query_expansion", "AP_diffusion")]
    assert ranks == [ranks_by(joined @ query), ranks_by(again), ranks_by(scores)]

    block = [*(f"only_{name}" for name in NAMES), "-" * 20, "Mean"]
    titles = [line.split(":")[0] for line in score_lines(out)]
    assert titles == [*block, "Query expansion...", *block, "Diffusion...", *block]
    means = [line for line in score_lines(out) if line.startswith("Mean: ")]
    keys = ("mAP", "mAP_query_expansion", "mAP_diffusion")
    assert means == [f"Mean: {100 * results[key]:.1f}" for key in keys]


def test_reranking_comes_after_each_search(evaluate):
    results, out, query, database = evaluate("--qe 2 --rerank 6 --rerank-by superglobal,k-reciprocal")
    again = expanded(query, database, 2, 0)
    for after, used in (("", query), ("_after_query_expansion", again)):
        plain = np.argsort(-(database @ used))
        first = FirstImages(0, used, plain[:6], database[plain[:6]])
        for name, method in (("superglobal", superglobal), ("k-reciprocal", k_reciprocal)):
            order = [*plain[:6][np.argsort(-method(first))], *plain[6:]]
            assert ranks_of(results[f"AP_{name}{after}"]) == np.argsort(order).tolist()
    titles = [line for line in score_lines(out) if line.endswith("...")]
    names = ["Superglobal", "Superglobal after query expansion"]
    names += ["K-reciprocal", "K-reciprocal after query expansion"]
    assert titles == ["Query expansion...", *(f"{name}..." for name in names)]
    difference = results["differences_to_search"]["k-reciprocal"]["mean"]
    assert difference == pytest.approx(results["mAP_k-reciprocal"] - results["mAP"])
    assert score_lines(out)[-7].startswith("searches: mAP, difference to search")


def test_reranking_by_regions_describes_the_images_again(evaluate, images, monkeypatch):
    plain, _, query, database = evaluate("--qe 0")
    seen = []

    def last_first(first, queries, database):
        seen.append((queries([first.query])[0], database(first.indices)))
        return np.arange(len(first.indices))

    monkeypatch.setattr("utils.search.reranking.regions.regions", last_first)
    results, _, _, _ = evaluate("--qe 0 --rerank 4 --rerank-by regions")
    assert ranks_of(results["AP_regions"]) == [
        3 - rank if rank < 4 else rank for rank in ranks_of(plain["AP"])
    ]
    order = np.argsort(-(database @ query))
    for regions, row in zip([seen[0][0], *seen[0][1]], [query, *database[order[:4]]], strict=True):
        mean = regions.weights.astype(np.float64) @ regions.vectors.astype(np.float64)
        np.testing.assert_allclose(unit(mean), row, atol=2e-3)


def test_reranking_by_geometry_gets_the_images_and_the_seed(evaluate, images, monkeypatch):
    pytest.importorskip("cv2")
    seen = []

    def inliers(first, second, seed):
        seen.append((first.name, second.name, seed))
        return 1000 if second.name == "f.png" else 0

    monkeypatch.setattr("utils.search.reranking.geometry.local_features", lambda image: image.path)
    monkeypatch.setattr("utils.search.reranking.geometry.count_inliers", inliers)
    monkeypatch.setattr("utils.search.reranking.geometry.WEIGHT", 5)
    results, _, query, database = evaluate("--qe 0 --rerank 12 --rerank-by geometry --seed 3")
    plain = [NAMES[index] for index in np.argsort(-(database @ query))]
    assert {(f"{name}.png", 3) for name in NAMES} == {(image, seed) for _, image, seed in seen}
    assert {query for query, _, _ in seen} == {"a.png"}
    plain.remove("f")
    expected = ["f", *plain]
    assert ranks_of(results["AP_geometry"]) == [expected.index(name) for name in NAMES]


def test_geometry_without_opencv_is_refused_before_any_image_is_decoded(measure, monkeypatch):
    monkeypatch.setattr("utils.images.batches.load_pixels", lambda *_: pytest.fail("an image is decoded"))
    monkeypatch.setitem(sys.modules, "cv2", None)
    status, out, err = measure("--rerank", "5", "--rerank-by", "geometry")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: OpenCV")
    assert "pip install opencv-python-headless" in err


def test_only_what_was_asked_for_is_printed(evaluate):
    _, out, _, _ = evaluate("--qe 0 --diffusion 4")
    assert [line for line in score_lines(out) if line.endswith("...")] == ["Diffusion..."]
    _, out, _, _ = evaluate("--qe 2")
    assert [line for line in score_lines(out) if line.endswith("...")] == ["Query expansion..."]


@pytest.mark.parametrize("options", ["", "--dba 2 --qe 3 --alpha 2 --diffusion 5 --diffusion-alpha 0.8"])
def test_a_flat_index_scores_as_exact_search_does(evaluate, options):
    pytest.importorskip("faiss")
    exact, out, _, _ = evaluate(options)
    assert exact["recall"] == {}
    results, out_of_index, _, _ = evaluate(f"{options} --search faiss-flat")
    assert out_of_index == out
    for key in exact:
        assert not key.startswith("AP") or results[key] == exact[key]
    assert results["recall"] == {"rmac": {"recall@10": 1.0}}


def test_each_compared_pooling_has_a_separate_index(evaluate):
    pytest.importorskip("faiss")
    exact, out, _, _ = evaluate("--compare rmac,mac")
    results, out_of_index, _, _ = evaluate("--compare rmac,mac --search faiss-flat")
    assert out_of_index == out
    assert results["compared"] == exact["compared"]
    assert results["recall"] == {"rmac": {"recall@10": 1.0}, "mac": {"recall@10": 1.0}}


def test_an_impossible_search_is_refused_before_any_image_is_decoded(measure, monkeypatch):
    monkeypatch.setattr("utils.images.batches.load_pixels", lambda *_: pytest.fail("an image is decoded"))
    status, out, err = measure("--search", "faiss-ivfpq")
    message = "faiss-ivfpq needs 256 images, and there are 4"
    try:
        import faiss  # noqa: F401
    except ImportError:
        message = "FAISS is not installed"
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {message}")
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert measure("--search", "faiss-flat")[2].startswith("error: FAISS is not installed: pip install")


def test_approximate_neighbours_are_refused_before_any_image_is_decoded(measure, monkeypatch):
    monkeypatch.setattr("utils.images.batches.load_pixels", lambda *_: pytest.fail("an image is decoded"))
    for options in (["--dba", "2"], ["--diffusion", "2"]):
        status, out, err = measure(*options, "--exact-neighbours", "3")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.endswith("leave out --exact-neighbours\n")
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert "pip install faiss-cpu" in measure("--dba", "2", "--exact-neighbours", "3")[2]
    assert "exact_neighbours 3 has no effect" in measure("--exact-neighbours", "3")[2]


def test_a_set_within_the_limit_has_exact_neighbours(evaluate, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    expected = evaluate("--dba 3 --diffusion 4")[1]
    assert evaluate("--dba 3 --diffusion 4 --exact-neighbours 12")[1] == expected
