"""Metrics of an evaluation: printed, in results.json, in scores.csv and in comparisons."""

import csv
import json

import pytest
from conftest import draw_image
from helpers import score_lines

METRICS = "mAP@1,recall@1,mP@3"

GOOD_FIRST = "q_1 Q0 d 1 4 x\nq_1 Q0 b 2 3 x\nq_1 Q0 a 3 2 x\nq_1 Q0 c 4 1 x\n"
"""Without junk d, the positives b and c have the ranks 0 and 2."""

WRONG_FIRST = "q_1 Q0 a 1 4 x\nq_1 Q0 b 2 3 x\n"
"""Positive b has the rank 1, and c is not retrieved."""


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "one.run").write_text(GOOD_FIRST)
    (tmp_path / "two.run").write_text(WRONG_FIRST)
    return tmp_path / "one.run", tmp_path / "two.run"


def read_results(folder):
    return json.loads((folder / "results.json").read_text())


def read_table(folder):
    with (folder / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def test_metrics_follow_the_mean(measure, runs, tmp_path):
    options = ["--score-run", runs[0], "--metrics", METRICS, "--output", tmp_path / "out"]
    status, out, err = measure(*options, network=[])
    assert (status, err) == (0, "")
    assert score_lines(out)[2:] == ["Mean: 79.2", "mAP@1: 100.0", "recall@1: 50.0", "mP@3: 66.7"]
    results = read_results(tmp_path / "out")
    expected = {"mAP@1": 1, "recall@1": 0.5, "mP@3": pytest.approx(2 / 3)}
    assert {name: results[name] for name in expected} == expected
    (row,) = read_table(tmp_path / "out")
    assert list(row)[5:] == ["AP@1", "recall@1", "P@3"]
    assert [float(row[name]) for name in list(row)[5:]] == list(expected.values())


def test_each_metric_is_compared(measure, runs, tmp_path):
    both = f"{runs[0]},{runs[1]}"
    options = ["--score-run", both, "--metrics", METRICS, "--output", tmp_path / "out"]
    status, out, _ = measure(*options, network=[])
    assert status == 0
    assert score_lines(out)[3:] == [
        "search: mAP@1, difference to one and its 95% interval",
        "one    100.0",
        "two      0.0  -100.0  [-100.0, -100.0]",
        "search: recall@1, difference to one and its 95% interval",
        "one     50.0",
        "two      0.0   -50.0  [-50.0, -50.0]",
        "search: mP@3, difference to one and its 95% interval",
        "one     66.7",
        "two     33.3   -33.3  [-33.3, -33.3]",
    ]
    changes = read_results(tmp_path / "out")["differences"]["two"]["search"]
    assert list(changes) == ["mean", "low", "high", "mAP@1", "recall@1", "mP@3"]
    assert changes["recall@1"] == {"mean": -0.5, "low": -0.5, "high": -0.5}


def test_an_evaluation_has_the_metrics_of_its_run_after_every_search(measure, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    metrics = ["--metrics", METRICS]
    status, out, err = measure("--output", one, "--rerank", "4", *metrics)
    assert status == 0, err
    assert measure("--score-run", one / "ranking.run", "--output", two, *metrics, network=[])[0] == 0
    first, second = read_results(one), read_results(two)
    for name in METRICS.split(","):
        assert first[name] == second[name]
        assert f"{name}_query_expansion" in first
        assert f"searches: {name}, difference to search and its 95% interval" in out
        assert name in first["differences_to_search"]["k-reciprocal"]
    assert {row["search"] for row in read_table(one)} > {"search", "query expansion"}


def test_metrics_replace_the_precisions_of_a_revisited_set(measure, tmp_path):
    folder = tmp_path / "data" / "Revisited"
    (folder / "jpg").mkdir(parents=True)
    for seed, name in enumerate("abcde"):
        draw_image(folder / "jpg" / f"{name}.png", seed)
    gnd = [{"bbx": [0, 0, 40, 40], "easy": [0], "hard": [1], "junk": [2]}]
    labels = {"imlist": list("abcd"), "qimlist": ["e"], "gnd": gnd}
    (folder / "gnd_roxford5k.json").write_text(json.dumps(labels))
    run = tmp_path / "x.run"
    run.write_text("".join(f"e Q0 {name} {rank} {-rank} x\n" for rank, name in enumerate("cbda", 1)))
    options = ["--dataset", folder, "--score-run", run, "--output", tmp_path / "out"]
    status, out, err = measure(*options, "--metrics", "mAP@2,recall@2", network=[])
    assert (status, err) == (0, "")
    # Easy: d, a; Medium: b, d, a; Hard: b, d.
    assert score_lines(out) == [
        "      mAP  mAP@2 recall@2",
        "E    25.0   50.0    100.0",
        "M    79.2   50.0     50.0",
        "H   100.0  100.0    100.0",
    ]
    assert list(read_results(tmp_path / "out")["protocols"]["easy"]) == ["mAP", "mAP@2", "recall@2", "AP"]
    assert measure(*options, network=[])[1].split()[:4] == ["mAP", "mP@1", "mP@5", "mP@10"]


def test_a_name_that_is_no_metric_is_refused(measure):
    status, out, err = measure("--metrics", "mAP@10,P@5")
    assert (status, out) == (2, "")
    assert "P@5" in err
    assert "of the form mAP@k, recall@k, mP@k with k from 1 to 1000000" in err


def test_a_missing_run_is_an_error_before_the_data_set_is_opened(measure, tmp_path):
    status, out, err = measure("--dataset", "Mini", "--score-run", tmp_path / "none.run", network=[])
    assert (status, out, err) == (2, "", f"error: {tmp_path / 'none.run'} is missing\n")
    assert not (tmp_path / "data" / "Mini").exists()
