"""Comparison of poolings: the scores equal those of separate runs, and differences have intervals."""

import json
import math

import numpy as np
import pytest
from conftest import ROOT, draw_image, write_query
from helpers import score_lines

from models.backbones.efficientnet_lite import EfficientNetLiteFeatures
from utils.scoring.bootstrap import paired_bootstrap
from utils.scoring.comparison import Comparison, compare_searches, differences_for_json
from utils.scoring.report import write_results
from utils.scoring.scores import ProtocolScores, Scores

NAN = float("nan")
POOLINGS = ["ra", "rmac", "mac", "spoc", "gem", "rgem"]
NETWORK = ["--backbone", "efficientnet_lite0", "--device", "cpu", "--weights-dir", ROOT / "weights"]


def compare(scores, seed=0):
    """Return the comparison of average precisions by pooling, search and query."""
    made = {
        pooling: {search: Scores({None: ProtocolScores(queries)}) for search, queries in searches.items()}
        for pooling, searches in scores.items()
    }
    return Comparison.from_scores(made, seed)


def test_the_table_by_hand():
    # The difference is equal for all queries, so that every resampling has the same mean.
    first = {"search": {"one": 0.25, "two": 0.5}, "query expansion": {"one": 0.5, "two": 0.75}}
    second = {"search": {"one": 0.375, "two": 0.625}, "query expansion": {"one": 0.25, "two": 0.5}}
    comparison = compare({"ra": first, "rmac": second})
    assert comparison.format().splitlines() == [
        "search: mAP, difference to ra and its 95% interval",
        "ra      37.5",
        "rmac    50.0   +12.5  [+12.5, +12.5]",
        "query expansion: mAP, difference to ra and its 95% interval",
        "ra      62.5",
        "rmac    37.5   -25.0  [-25.0, -25.0]",
    ]
    assert comparison.for_json()["differences"] == {
        "rmac": {
            "search": {"mean": 0.125, "low": 0.125, "high": 0.125},
            "query expansion": {"mean": -0.25, "low": -0.25, "high": -0.25},
        }
    }


def test_the_table_of_searches_by_hand():
    plain, other = {"one": 0.25, "two": 0.5}, {"one": 0.5, "two": 0.75}
    searches = {"search": plain, "k-reciprocal": other}
    scores = {name: Scores({None: ProtocolScores(queries)}) for name, queries in searches.items()}
    comparison = compare_searches(scores, seed=0)
    assert comparison.format().splitlines() == [
        "searches: mAP, difference to search and its 95% interval",
        "search         37.5",
        "k-reciprocal   62.5   +25.0  [+25.0, +25.0]",
    ]
    assert differences_for_json(comparison) == {"k-reciprocal": {"mean": 0.25, "low": 0.25, "high": 0.25}}


def test_intervals_pair_the_scores_of_each_query_by_name():
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 20))
    names = [f"q{number}" for number in range(20)]
    backwards = dict(reversed(list(zip(names, two.tolist(), strict=True))))
    scores = {"mac": {"search": dict(zip(names, one.tolist(), strict=True))}, "ra": {"search": backwards}}
    assert compare(scores, seed=5).differences["ra"]["search"][None]["mAP"] == paired_bootstrap(one, two, 5)
    assert compare(scores, seed=5).differences != compare(scores, seed=6).differences


def test_queries_without_positives_count_neither_for_the_mean_nor_for_the_difference():
    scores = {
        "ra": {"search": {"one": 0.25, "none": NAN, "two": 0.5}},
        "mac": {"search": {"one": 0.5, "none": NAN, "two": 0.75}},
    }
    lines = compare(scores).format().splitlines()
    assert lines[1:] == ["ra      37.5", "mac     62.5   +25.0  [+25.0, +25.0]"]


def test_where_no_query_has_positives_all_is_nan_and_null(tmp_path):
    comparison = compare({"ra": {"search": {"none": NAN}}, "mac": {"search": {"none": NAN}}})
    assert comparison.format().splitlines()[1:] == [
        "ra       nan",
        "mac      nan    +nan  [+nan, +nan]",
    ]
    write_results(tmp_path, comparison.for_json())
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["differences"]["mac"]["search"] == {"mean": None, "low": None, "high": None}


def test_protocols_have_a_part_of_the_table_each():
    def protocol_scores(**by_protocol):
        return Scores({name: ProtocolScores({"q": value, "r": value}) for name, value in by_protocol.items()})

    scores = {
        "ra": {"search": protocol_scores(easy=0.5, hard=NAN)},
        "mac": {"search": protocol_scores(easy=0.25, hard=NAN)},
    }
    assert Comparison.from_scores(scores, 0).format().splitlines() == [
        "search, easy: mAP, difference to ra and its 95% interval",
        "ra      50.0",
        "mac     25.0   -25.0  [-25.0, -25.0]",
        "search, hard: mAP, difference to ra and its 95% interval",
        "ra       nan",
        "mac      nan    +nan  [+nan, +nan]",
    ]


@pytest.fixture
def images(dataset):
    """Ten images, and queries that distinguish the poolings, one of them without positives."""
    for seed, name in enumerate("efghij", start=10):
        draw_image(dataset / "jpg" / f"{name}.png", seed)
    for name in "bcdefghij":
        write_query(dataset, f"only_{name}", "a 0 0 40 40", good=name)
    write_query(dataset, "none", "b 0 0 40 40", junk="a")
    return dataset


@pytest.fixture
def evaluate(measure, images, tmp_path):
    """A function that evaluates with options and returns results.json and the printed text."""

    def run(*options):
        status, out, err = measure("--output", tmp_path / "out", *options, network=NETWORK)
        assert status == 0, err
        return json.loads((tmp_path / "out" / "results.json").read_text()), out

    return run


def figures(results):
    """Return the scores in results.json by name."""
    return {name: value for name, value in results.items() if name.startswith(("AP", "mAP"))}


def test_each_pooling_has_the_scores_of_a_separate_run(evaluate, tmp_path):
    options = [
        "--S",
        "128",
        "--scales",
        "1,0.5",
        "--dba",
        "1",
        "--diffusion",
        "3",
        "--diffusion-alpha",
        "0.5",
    ]
    separate = {pooling: figures(evaluate("--pooling", pooling, *options)[0]) for pooling in POOLINGS}
    results, out = evaluate("--compare", ",".join(POOLINGS), *options)
    assert results["compared"] == separate
    assert figures(results) == separate["ra"]
    assert len({str(of_one) for of_one in separate.values()}) > 3

    lines = iter(score_lines(out))
    for search, key in (("search", ""), ("query expansion", "_query_expansion"), ("diffusion", "_diffusion")):
        assert next(lines) == f"{search}: mAP, difference to ra and its 95% interval"
        assert next(lines) == f"ra    {100 * separate['ra'][f'mAP{key}']:6.1f}"
        for pooling in POOLINGS[1:]:
            change = results["differences"][pooling][search]
            known = [
                separate[pooling][f"AP{key}"][query] - precision
                for query, precision in separate["ra"][f"AP{key}"].items()
                if precision is not None
            ]
            assert change["mean"] == pytest.approx(math.fsum(known) / len(known))
            assert change["low"] <= change["mean"] <= change["high"]
            numbers = [f"{100 * change[name]:+.1f}" for name in ("mean", "low", "high")]
            mean = f"{100 * separate[pooling][f'mAP{key}']:.1f}"
            assert next(lines).split() == [pooling, mean, numbers[0], f"[{numbers[1]},", f"{numbers[2]}]"]
    assert list(lines) == []


def test_the_backbone_sees_each_image_and_each_query_once(evaluate, monkeypatch):
    batch_sizes = []
    forward = EfficientNetLiteFeatures.forward
    monkeypatch.setattr(
        EfficientNetLiteFeatures,
        "forward",
        lambda self, images: batch_sizes.append(len(images)) or forward(self, images),
    )
    results, _ = evaluate("--compare", ",".join(POOLINGS))
    assert sum(batch_sizes) == results["images"] + results["queries"] == 10 + 11


def test_rankings_and_unnamed_scores_belong_to_the_first_pooling(evaluate, tmp_path):
    results, _ = evaluate("--compare", "mac,rmac")
    assert figures(results) == results["compared"]["mac"] != results["compared"]["rmac"]
    with np.load(tmp_path / "out" / "descriptors.npz") as arrays:
        query = arrays["query_names"].tolist().index("q_1")
        # concatenated in the order of the option
        assert arrays["descriptors"].shape == (10, 2 * 512)
        similar = arrays["descriptors"][:, :512] @ arrays["query_descriptors"][query, :512]
    ranking = (tmp_path / "out" / "rankings" / "q_1.rnk").read_text().split()
    assert ranking == ["abcdefghij"[index] for index in np.argsort(-similar)]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_store_holds_all_that_are_compared(evaluate, tmp_path, monkeypatch, precision):
    options = ["--compare", "rmac,ra", "--dba", "1", "--diffusion", "3"]
    expected, out = evaluate(*options)
    options += ["--descriptors", tmp_path / "store", "--store-precision", precision]
    first, _ = evaluate(*options)
    monkeypatch.setattr("utils.images.batches.load_pixels", lambda *_: pytest.fail("an image is decoded"))
    again, out_again = evaluate(*options)
    assert again["compared"] == first["compared"]
    if precision == "float32":
        assert again["compared"] == expected["compared"]
        assert out_again == out


def test_a_revisited_set_has_each_protocol_in_the_table(measure, images, tmp_path):
    levels = {"easy": [4, 7], "hard": [2, 9], "junk": [0]}
    gnd = [{"bbx": [0, 0, 40, 40], **levels}, {"bbx": [8, 0, 64, 48], **levels}]
    labels = {"imlist": list("abcdefghij"), "qimlist": ["a", "b"], "gnd": gnd}
    (images / "gnd_rparis6k.json").write_text(json.dumps(labels))
    options = ["--output", tmp_path / "out", "--qe", "0"]
    separate = {}
    for pooling in ("rmac", "mac"):
        assert measure(*options, "--pooling", pooling, network=NETWORK)[0] == 0
        separate[pooling] = json.loads((tmp_path / "out" / "results.json").read_text())["protocols"]
    status, out, err = measure(*options, "--compare", "rmac,mac", network=NETWORK)
    assert status == 0, err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["compared"] == {pooling: {"protocols": of_one} for pooling, of_one in separate.items()}
    assert list(results["differences"]["mac"]["search"]) == ["easy", "medium", "hard"]
    lines = score_lines(out)
    for index, protocol in enumerate(("easy", "medium", "hard")):
        assert lines[3 * index].startswith(f"search, {protocol}: mAP, difference to rmac")
        for row, pooling in enumerate(("rmac", "mac"), start=1):
            mean = f"{100 * separate[pooling][protocol]['mAP']:.1f}"
            assert lines[3 * index + row].split()[:2] == [pooling, mean]
    assert len(lines) == 9
