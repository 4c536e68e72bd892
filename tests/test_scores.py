import pytest

from utils.scoring.report import format_scores, scores_for_json
from utils.scoring.scores import ProtocolScores, Scores, mean_over_queries
from utils.search.run_searches import DIFFUSED, EXPANDED, PLAIN

NAN = float("nan")


def oxford(**precisions):
    return Scores({None: ProtocolScores(precisions)})


def test_results_name_each_search_the_plain_one_first():
    results = scores_for_json({PLAIN: oxford(q=0.5, none=NAN), DIFFUSED: oxford(q=0.25, none=NAN)})
    assert list(results) == [
        "mAP",
        "AP",
        "mAP_diffusion",
        "AP_diffusion",
        "mAP_query_expansion",
        "AP_query_expansion",
    ]
    assert (results["mAP"], results["mAP_diffusion"], results["mAP_query_expansion"]) == (0.5, 0.25, None)
    expanded = scores_for_json({PLAIN: oxford(q=0.5), EXPANDED: oxford(q=0.75)})
    assert (expanded["mAP_query_expansion"], expanded["AP_query_expansion"]) == (0.75, {"q": 0.75})


def test_queries_without_positives_are_named_with_the_protocol_that_has_none():
    assert oxford(one=0.5, two=NAN).without_positives() == ["two"]
    protocols = {
        "easy": ProtocolScores({"one": NAN, "two": 0.5}),
        "hard": ProtocolScores({"one": 0.25, "two": NAN}),
    }
    assert Scores(protocols).without_positives() == ["one (easy)", "two (hard)"]


def test_a_single_protocol_is_printed_per_query_and_named_protocols_as_a_table():
    printed = format_scores({PLAIN: oxford(a=0.5, b=0.25), EXPANDED: oxford(a=1.0, b=0.0)})
    lines = ["a: 50.00", "b: 25.00", "-" * 20, "Mean: 37.5", "Query expansion..."]
    assert printed.splitlines() == [*lines, "a: 100.00", "b: 0.00", "-" * 20, "Mean: 50.0"]
    protocols = {"easy": ProtocolScores({"a": 0.5}, {"mP@1": {"a": 1.0}, "recall@100": {"a": 0.25}})}
    assert Scores(protocols).format().splitlines() == [
        "      mAP   mP@1 recall@100",
        "E    50.0  100.0       25.0",
    ]


def test_means_leave_undefined_queries_out():
    assert mean_over_queries({"a": 0.5, "b": NAN, "c": 0.25}) == 0.375
    assert mean_over_queries({"a": NAN}) == pytest.approx(NAN, nan_ok=True)
