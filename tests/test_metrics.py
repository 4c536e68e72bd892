"""mAP@k, recall@k and mP@k: against trec_eval on random rankings, and by hand."""

import math

import numpy as np
import pytest
import pytrec_eval

from utils.data.retrieval_dataset import Query
from utils.scoring.metrics import (
    MetricNames,
    average_precision_at,
    precision_at,
    recall_at,
    score_metrics,
)

CUTOFFS = (1, 3, 10, 100)


def query(good="", ok="", junk=""):
    return Query("q", "", (0, 0, 1, 1), frozenset(good), frozenset(ok), frozenset(junk))


def trec_scores(ranking, positives):
    """Return the scores of trec_eval for one query."""
    measures = {f"{name}.{','.join(map(str, range(1, 121)))}" for name in ("map_cut", "recall", "P")}
    labels = {"q": {name: 1 for name in positives}}  # noqa: C420  integers, as pytrec_eval requires
    run = {"q": {name: float(-rank) for rank, name in enumerate(ranking)}}
    return pytrec_eval.RelevanceEvaluator(labels, measures).evaluate(run)["q"]


@pytest.mark.parametrize("seed", range(20))
def test_scores_of_random_rankings_equal_those_of_trec_eval(seed):
    """Some positives are not in the ranking, and the ranking may have fewer than k images."""
    rng = np.random.default_rng(seed)
    names = [f"image{index}" for index in range(120)]
    good, ok, junk, _ = np.split(rng.permutation(names), np.cumsum(rng.integers(1, 30, 3)))
    ranking = rng.permutation(names)[: rng.integers(5, 120)].tolist()
    positives = {*good.tolist(), *ok.tolist()}
    without_junk = [name for name in ranking if name not in set(junk.tolist())]
    expected = trec_scores(without_junk, positives)
    ranks = {name: rank for rank, name in enumerate(ranking)}
    metrics = [f"{kind}@{k}" for kind in ("mAP", "recall", "mP") for k in CUTOFFS]
    scores = score_metrics([query(good, ok, junk)], [ranks], metrics)
    for k in CUTOFFS:
        # trec_eval divides by all positives, Google Landmarks v2 by those that the first k images can hold.
        share = len(positives) / min(len(positives), k)
        assert scores[f"mAP@{k}"]["q"] == pytest.approx(expected[f"map_cut_{k}"] * share, abs=1e-12)
        assert scores[f"recall@{k}"]["q"] == pytest.approx(expected[f"recall_{k}"], abs=1e-12)
        retrieved = [index for index, name in enumerate(without_junk, start=1) if name in positives]
        last = retrieved[-1] if len(retrieved) == len(positives) else 120
        assert scores[f"mP@{k}"]["q"] == pytest.approx(expected[f"P_{min(k, last)}"], abs=1e-12)


def test_scores_by_hand():
    """The ranking is a b c d e f; a is junk, b, d and f are positive, z is positive and not retrieved."""
    ranks = [{name: rank for rank, name in enumerate("abcdef")}]
    metrics = ["mAP@1", "mAP@3", "mAP@100", "recall@1", "recall@3", "recall@100", "mP@3", "mP@10"]
    scores = score_metrics([query("bdz", "f", "a")], ranks, metrics)
    assert {metric: per_query["q"] for metric, per_query in scores.items()} == pytest.approx(
        {
            "mAP@1": 1,
            "mAP@3": (1 + 2 / 3) / 3,
            "mAP@100": (1 + 2 / 3 + 3 / 5) / 4,
            "recall@1": 1 / 4,
            "recall@3": 2 / 4,
            "recall@100": 3 / 4,
            "mP@3": 2 / 3,
            "mP@10": 3 / 10,
        }
    )


def test_precision_ends_at_the_last_positive_only_if_all_are_retrieved():
    assert precision_at(10, np.array([0, 3]), 2) == 2 / 4
    assert precision_at(3, np.array([0, 3]), 2) == 1 / 3
    assert precision_at(10, np.array([0, 3]), 3) == 2 / 10


@pytest.mark.parametrize("function", [average_precision_at, recall_at, precision_at])
def test_queries_without_retrieved_positives_score_0_and_without_any_nan(function):
    none = np.array([], np.int64)
    assert function(5, none, 2) == 0
    assert math.isnan(function(5, none, 0))


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        ("mAP@1", True),
        ("recall@10", True),
        ("mP@1000000", True),
        ("mP@1000001", False),
        ("mP@0", False),
        ("mP@01", False),
        ("mP@-1", False),
        ("mP@", False),
        ("mAP", False),
        ("P@5", False),
        ("map@5", False),
        ("mAP@5 ", False),
        ("mAP@٥", False),
    ],
)
def test_names_of_metrics(name, is_valid):
    assert (name in MetricNames()) == is_valid
