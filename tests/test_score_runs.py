"""Run files: scores computed by hand, scores of the evaluation that wrote them, and runs of other systems."""

import csv
import json

import numpy as np
import pytest
from helpers import score_lines

from utils.errors import UserError
from utils.scoring.run_files import ScoredRanking, read_run, run_lines

RUN = """\
q_1 Q0 a 1 0.9 other
q_1 Q0 d 2 0.8 other
q_1 Q0 b 3 0.8 other
q_1 Q0 c 4 0.1 other
"""
"""Without junk d, the positives b and c have the ranks 1 and 2, from 0."""

AP = 0.5 * (0 + 1 / 2) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2
"""Average precision of RUN: the area of two trapezoids, each half of the recall wide."""


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "other.run"
    path.write_text(RUN)
    return path


def test_a_run_of_another_system_is_scored_without_a_network(measure, run_file):
    status, out, err = measure("--score-run", run_file, network=[])
    assert (status, err) == (0, "")
    assert score_lines(out) == [f"q_1: {100 * AP:.2f}", "-" * 20, f"Mean: {100 * AP:.1f}"]


def test_an_image_that_a_run_leaves_out_is_not_retrieved(measure, run_file):
    run_file.write_text("q_1 Q0 b 1 1 other\n")  # precision 1 up to a recall of 1/2
    assert score_lines(measure("--score-run", run_file, network=[])[1])[-1] == "Mean: 50.0"


def test_lines_in_any_order_are_sorted_by_rank(measure, run_file):
    run_file.write_text("\n".join(reversed(RUN.splitlines())))
    assert score_lines(measure("--score-run", run_file, network=[])[1])[0] == f"q_1: {100 * AP:.2f}"


def test_the_run_of_an_evaluation_has_its_scores(measure, tmp_path):
    assert measure("--output", tmp_path / "one")[0] == 0
    run = tmp_path / "one" / "ranking.run"
    rows = [line.split() for line in run.read_text().splitlines()]
    ranking = (tmp_path / "one" / "rankings" / "q_1.rnk").read_text().split()
    expected = [["q_1", "Q0", name, str(rank)] for rank, name in enumerate(ranking, 1)]
    assert [row[:4] for row in rows] == expected
    with np.load(tmp_path / "one" / "descriptors.npz") as arrays:
        products = arrays["descriptors"] @ arrays["query_descriptors"][0]
        by_name = dict(zip(arrays["names"], products, strict=True))
    np.testing.assert_allclose([float(row[4]) for row in rows], [by_name[row[2]] for row in rows], atol=1e-6)
    assert measure("--score-run", run, "--output", tmp_path / "two", network=[])[0] == 0
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert first["AP"] == second["AP"]
    written = {path.name for path in (tmp_path / "two").iterdir() if path.name[0] != "."}
    assert written == {"results.json", "scores.csv"}
    status, _, err = measure("--score-run", run, "--output", tmp_path / "one", network=[])
    assert status == 2
    assert err == f"error: output {tmp_path / 'one'} would replace {run}: name another folder\n"


def test_runs_are_compared_with_the_first_one(measure, run_file, tmp_path):
    (tmp_path / "short.run").write_text("q_1 Q0 b 1 1 other\n")
    status, out, _ = measure(
        "--score-run", f"{run_file},{tmp_path / 'short.run'}", "--output", tmp_path / "o", network=[]
    )
    assert status == 0
    assert score_lines(out)[1].split() == ["other", f"{100 * AP:.1f}"]
    assert score_lines(out)[2].split()[:3] == ["short", "50.0", f"{50 - 100 * AP:+.1f}"]
    with (tmp_path / "o" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["system"], row["query"]) for row in rows] == [("other", "q_1"), ("short", "q_1")]
    np.testing.assert_allclose([float(row["AP"]) for row in rows], [AP, 0.5], rtol=1e-6)


def test_names_with_spaces_and_percent_signs_are_read_back(tmp_path):
    ranking = ScoredRanking("my query", ["100% sure", "b\tc", "d%20e"], np.array([0.5, 0.25, -np.inf]))
    assert run_lines(ranking).splitlines()[0] == "my%20query Q0 100%25%20sure 1 0.5 regional-attention"
    (tmp_path / "x.run").write_text(run_lines(ranking))
    assert read_run(tmp_path / "x.run") == {"my query": ["100% sure", "b\tc"]}  # -inf: not retrieved


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rankings"),
        ("q_1 Q0 a 1 0.9\n", "line 1: 'q_1 Q0 a 1 0.9' is not 'query Q0 image rank similarity system'"),
        ("q_1 Q0 a one 0.9 x\n", "line 1: "),
        ("q_1 Q0 a 1 nan x\n", "line 1: "),
        ("q_1 Q0 a 1 0.9 x\nq_1 Q0 b 1 0.8 x\n", "query 'q_1' has two images of rank 1"),
        ("q_1 Q0 a 1 0.9 x\nq_1 Q0 a 2 0.8 x\n", "query 'q_1' has image 'a' twice"),
        ("q_1 Q0 a 1 0.8 x\nq_1 Q0 b 2 0.9 x\n", "the similarity of query 'q_1' rises from rank 1 to 2"),
        ("q_2 Q0 a 1 0.8 x\n", "lacks 1 of 1 queries: q_1"),
        (RUN + "q_2 Q0 a 1 0.8 x\n", "has queries that are not in the data set: q_2"),
        ("q_1 Q0 a.png 1 0.8 x\n", "images are named without folder and suffix, such as a"),
    ],
)
def test_a_run_that_does_not_fit_is_one_line(measure, run_file, text, message):
    run_file.write_text(text)
    status, out, err = measure("--score-run", run_file, network=[])
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--figures", "figures"), "figures"),
        (("--eval-binary", "compute_ap"), "eval_binary"),
        (("--compare", "ra,mac"), "compare"),
        (("--rerank", "10"), "rerank"),
        (("--no-boxes",), "no_boxes"),
    ],
)
def test_options_without_effect_on_runs_are_refused(measure, run_file, options, name):
    message = f"error: {name} has no effect on the run files of score_run: leave one out\n"
    assert measure("--score-run", run_file, *options, network=[]) == (2, "", message)


def test_a_run_given_twice_is_refused(measure, run_file):
    status, out, err = measure("--score-run", f"{run_file},{run_file}", network=[])
    assert (status, out) == (2, "")
    assert "names a file twice" in err


def test_only_the_first_process_of_torchrun_scores_runs(measure, run_file, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    assert measure("--score-run", run_file, "--output", tmp_path / "o", network=[]) == (0, "", "")
    assert not (tmp_path / "o" / "results.json").exists()
    monkeypatch.setenv("RANK", "0")
    assert "Mean" in measure("--score-run", run_file, network=[])[1]


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.run is missing"):
        read_run(tmp_path / "none.run")
