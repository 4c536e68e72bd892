"""Evaluation of a tiny revisited set, with the scores computed again from the written rankings."""

import json
import math

import numpy as np
import pytest
from conftest import draw_image
from helpers import score_lines

PROTOCOLS = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
IMAGES = [f"image{number}" for number in (7, 3, 11, 0, 5, 9, 1, 13, 2, 10, 4, 12, 6, 8)]
QUERIES = ["eiffel", "arch", "tower"]


def labels_of(seed):
    """Return random labels of 14 images for three queries, the third without easy images."""
    rng = np.random.default_rng(seed)
    gnd = []
    for query in range(3):
        indices = rng.permutation(len(IMAGES)).tolist()
        levels = {"easy": indices[:4], "hard": indices[4:7], "junk": indices[7:9]}
        if query == 2:
            levels["easy"] = []
        gnd.append({"bbx": [0.0, 0.0, 40.0 + query, 40.0], **levels})
    return {"imlist": IMAGES, "qimlist": QUERIES, "gnd": gnd}


def write_labels(folder, labels):
    (folder / "gnd_roxford5k.json").write_text(json.dumps(labels))


@pytest.fixture
def revisited(tmp_path):
    """The folder of a tiny revisited set."""
    folder = tmp_path / "data" / "Revisited"
    (folder / "jpg").mkdir(parents=True)
    for seed, name in enumerate([*IMAGES, *QUERIES]):
        draw_image(folder / "jpg" / f"{name}.png", seed)
    write_labels(folder, labels_of(0))
    return folder


@pytest.fixture
def evaluate(measure, revisited, tmp_path):
    def run(*options):
        return measure("--dataset", revisited, "--output", tmp_path / "out", *options)

    return run


def scores_of_ranking(ranking, positives, junk):
    """Return average precision and precisions at 1, 5 and 10 of a ranking, computed image by image."""
    if not positives:
        return [math.nan] * 4
    kept = [image for image in ranking if image not in junk]
    ranks = [rank for rank, image in enumerate(kept) if image in positives]
    assert len(ranks) == len(positives)
    area = 0.0
    for hits, rank in enumerate(ranks):
        before = hits / rank if rank else 1.0
        area += (before + (hits + 1) / (rank + 1)) / 2 / len(positives)
    precisions = []
    for k in (1, 5, 10):
        first = kept[: min(k, ranks[-1] + 1)]
        precisions.append(sum(image in positives for image in first) / len(first))
    return [area, *precisions]


def expected_figures(labels, folder):
    """Return an array (queries, 4) of scores by protocol, from the files of rankings."""
    figures = {}
    for protocol, levels_of_protocol in PROTOCOLS.items():
        rows = []
        for query, levels in zip(labels["qimlist"], labels["gnd"], strict=True):
            ranking = (folder / "rankings" / f"{query}.rnk").read_text().split()
            assert sorted(ranking) == sorted(IMAGES)
            named = {level: {IMAGES[index] for index in levels[level]} for level in ("easy", "hard", "junk")}
            positives = set().union(*(named[level] for level in levels_of_protocol))
            rows.append(scores_of_ranking(ranking, positives, set().union(*named.values()) - positives))
        figures[protocol] = np.array(rows)
    return figures


def table(protocols):
    """Return the lines of the printed table from the scores by protocol in results.json."""
    lines = ["      mAP   mP@1   mP@5  mP@10"]
    for protocol, means in protocols.items():
        values = [math.nan if value is None else 100 * value for value in list(means.values())[:4]]
        lines.append(f"{protocol[0].upper()}  " + " ".join(f"{value:6.1f}" for value in values))
    return lines


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_each_protocol_are_those_of_the_written_rankings(evaluate, revisited, tmp_path, seed):
    labels = labels_of(seed)
    write_labels(revisited, labels)
    status, out, err = evaluate()
    assert status == 0, err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    figures = expected_figures(labels, tmp_path / "out")
    assert list(results["protocols"]) == ["easy", "medium", "hard"]
    for protocol, rows in figures.items():
        actual = results["protocols"][protocol]
        assert list(actual) == ["mAP", "mP@1", "mP@5", "mP@10", "AP"]
        assert [actual[key] for key in list(actual)[:4]] == pytest.approx(np.nanmean(rows, axis=0), abs=1e-9)
        precisions = [math.nan if value is None else value for value in actual["AP"].values()]
        assert list(actual["AP"]) == QUERIES
        assert precisions == pytest.approx(rows[:, 0], abs=1e-9, nan_ok=True)
    assert results["protocols"]["easy"]["AP"]["tower"] is None
    assert not {"mAP", "AP", "mAP_query_expansion"} & results.keys()
    # Only the two tables are printed.
    expected = [
        *table(results["protocols"]),
        "Query expansion...",
        *table(results["protocols_query_expansion"]),
    ]
    assert score_lines(out) == expected


def test_the_database_is_imlist_and_queries_are_not_in_it(evaluate, tmp_path):
    assert evaluate()[0] == 0
    with np.load(tmp_path / "out" / "descriptors.npz") as arrays:
        assert arrays["names"].tolist() == IMAGES
        assert arrays["query_names"].tolist() == QUERIES
        similar = arrays["query_descriptors"] @ arrays["descriptors"].T
    for query, row in zip(QUERIES, similar, strict=True):
        ranking = (tmp_path / "out" / "rankings" / f"{query}.rnk").read_text().split()
        assert ranking == [IMAGES[index] for index in np.argsort(-row)]


def test_diffusion_without_expansion_has_a_separate_table(evaluate, tmp_path):
    status, out, _ = evaluate("--qe", "0", "--diffusion", "4")
    assert status == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "protocols_query_expansion" not in results
    assert score_lines(out) == [
        *table(results["protocols"]),
        "Diffusion...",
        *table(results["protocols_diffusion"]),
    ]


def test_a_protocol_without_any_positive_is_nan_and_null(evaluate, revisited, tmp_path, caplog):
    labels = labels_of(0)
    for levels in labels["gnd"]:
        levels["hard"] = []
    write_labels(revisited, labels)
    status, out, _ = evaluate("--qe", "0")
    assert status == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    hard = {"mAP": None, "mP@1": None, "mP@5": None, "mP@10": None, "AP": dict.fromkeys(QUERIES)}
    assert results["protocols"]["hard"] == hard
    assert results["protocols"]["easy"]["mAP"] == results["protocols"]["medium"]["mAP"]
    assert score_lines(out)[-1] == "H     nan    nan    nan    nan"
    for message in ("eiffel (hard)", "tower (easy)", "tower (medium)"):
        assert message in caplog.text


def test_vggs_program_is_refused_before_any_work(measure, revisited, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.images.batches.load_pixels", lambda *_: pytest.fail("an image is decoded"))
    program = tmp_path / "compute_ap"
    program.write_text("#!/bin/sh\necho 1\n")
    program.chmod(0o755)
    status, out, err = measure("--dataset", revisited, "--eval-binary", program)
    assert (status, out) == (2, "")
    assert err == "error: --eval-binary does not know the protocols of this data set: leave it out\n"


def test_a_store_and_two_queries_of_one_image_go_together(measure, revisited, tmp_path):
    labels = labels_of(1)
    labels["qimlist"] = ["arch", "arch", "tower"]
    write_labels(revisited, labels)
    options = ["--dataset", revisited, "--output", tmp_path / "out"]
    _, expected, _ = measure(*options)
    rankings = sorted(path.name for path in (tmp_path / "out" / "rankings").iterdir())
    assert rankings == ["arch.rnk", "arch_2.rnk", "tower.rnk"]
    for _ in range(2):
        assert measure(*options, "--descriptors", tmp_path / "store")[:2] == (0, expected)
