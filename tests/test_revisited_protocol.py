import math

import numpy as np
import pytest
from helpers import rank_names
from reference import average_precision

from utils.data.retrieval_dataset import Query
from utils.data.revisited import METRICS
from utils.scoring.report import write_results
from utils.scoring.revisited_protocol import score_protocols as score_ranks
from utils.scoring.scores import Scores

LEVELS = ("easy", "hard", "junk")


def query(name, good=(), ok=(), junk=()):
    return Query(name, "", (0, 0, 1, 1), frozenset(good), frozenset(ok), frozenset(junk))


def score_protocols(queries, names, similar):
    query_names = [query.name for query in next(iter(queries.values()))]
    return score_ranks(queries, dict(zip(query_names, rank_names(names, similar), strict=True)), METRICS)


def protocols(labels):
    """Return the queries of the three protocols from a dict of names by level per query."""
    queries = {"easy": [], "medium": [], "hard": []}
    for number, levels in enumerate(labels):
        easy, hard, junk = (list(levels.get(level, ())) for level in LEVELS)
        queries["easy"].append(query(f"q{number}", easy, [], junk + hard))
        queries["medium"].append(query(f"q{number}", easy, hard, junk))
        queries["hard"].append(query(f"q{number}", [], hard, junk + easy))
    return queries


def scores_of_ranking(ranking, positives, junk):
    """Return average precision and precisions at 1, 5, 10, image by image as in the published evaluation."""
    if not positives:
        return [math.nan] * 4
    ranking = [image for image in ranking if image not in junk]
    ranks = [index for index, image in enumerate(ranking) if image in positives]
    precisions = []
    for k in (1, 5, 10):
        k = min(k, max(ranks) + 1)
        precisions.append(sum(rank + 1 <= k for rank in ranks) / k)
    return [average_precision(ranking, positives), *precisions]


def expected_scores(labels, names, similar):
    """Return by protocol the four means, and the average precision of each query."""
    expected = {}
    levels_of_protocols = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
    for protocol, positive_levels in levels_of_protocols.items():
        rows = []
        for levels, row in zip(labels, similar, strict=True):
            ranking = [
                names[index] for index in sorted(range(len(names)), key=lambda i, row=row: (-row[i], i))
            ]
            positives, junk = set(), set()
            for level in LEVELS:
                (positives if level in positive_levels else junk).update(levels.get(level, ()))
            rows.append(scores_of_ranking(ranking, positives, junk))
        counted = [row for row in rows if not math.isnan(row[0])]
        means = [sum(column) / len(counted) for column in zip(*counted, strict=True)] or [math.nan] * 4
        expected[protocol] = (means, [row[0] for row in rows])
    return expected


def assert_equals_definition(labels, names, similar):
    actual = score_protocols(protocols(labels), names, similar)
    expected = expected_scores(labels, names, similar)
    assert list(actual) == list(expected) == ["easy", "medium", "hard"]
    for protocol, (means, averages) in expected.items():
        scores = actual[protocol]
        assert list(scores.means()) == ["mAP", "mP@1", "mP@5", "mP@10"]
        np.testing.assert_allclose(list(scores.means().values()), means, rtol=1e-12, atol=0)
        np.testing.assert_allclose(list(scores.average_precisions.values()), averages, rtol=1e-12, atol=0)
        assert list(scores.average_precisions) == [f"q{number}" for number in range(len(labels))]
    return actual


@pytest.mark.parametrize("values", [2, 30, 10**7])
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_random_rankings_follow_the_definition(values, seed):
    """Similarities have many, some or no ties, and each level is empty for some queries."""
    rng = np.random.default_rng(seed)
    names = [f"image{index}" for index in rng.permutation(120)]
    similar = rng.integers(0, values, (25, 120)).astype(np.float32)
    labels = []
    for number in range(25):
        sizes = rng.integers(0, 20, 3) * (rng.random(3) < 0.8)
        if number % 5 == 0:
            sizes = (sizes > 0).astype(int)
        labelled = np.split(rng.permutation(names)[: sizes.sum()], np.cumsum(sizes)[:-1])
        labels.append(dict(zip(LEVELS, map(list, labelled), strict=True)))
    scores = assert_equals_definition(labels, names, similar)
    assert any(math.isnan(average) for average in scores["easy"].average_precisions.values())


A_TO_H = list("abcdefgh")


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"junk": A_TO_H},
        {"easy": A_TO_H},
        {"hard": A_TO_H},
        {"easy": "a", "junk": A_TO_H[1:]},
        {"easy": "h", "junk": A_TO_H[:-1]},
        {"hard": "d"},
        {"easy": "abc", "hard": "de"},
        {"easy": "fgh", "hard": "de"},
        {"easy": "fgh", "hard": "abc", "junk": "d"},
    ],
)
def test_scores_of_special_cases_follow_the_definition(labels):
    falling = np.arange(8, 0, -1, dtype=np.float32)
    for rows in ([falling], [falling, falling[::-1], np.zeros(8, np.float32)]):
        assert_equals_definition([labels] * len(rows), A_TO_H, np.array(rows))


def test_figures_worked_out_by_hand():
    """The ranking is a b c d e f; easy b, f; hard a, d; junk c."""
    labels = protocols([{"easy": "bf", "hard": "ad", "junk": "c"}])
    scores = score_protocols(labels, list("fedcba"), np.arange(6, dtype=np.float32)[None])
    # easy: b e f remain, positives at 0 and 2, so 3 images count: (1 + 1)/4 + (1/2 + 2/3)/4
    assert Scores(scores).for_json("")["protocols"]["easy"] == {
        "mAP": pytest.approx(19 / 24),
        "mP@1": 1,
        "mP@5": pytest.approx(2 / 3),
        "mP@10": pytest.approx(2 / 3),
        "AP": {"q0": pytest.approx(19 / 24)},
    }
    # medium: a b d e f remain, positives at 0, 1, 2 and 4: three times (1 + 1)/8, and (3/4 + 4/5)/8
    assert scores["medium"].means() == {
        "mAP": pytest.approx((6 + 0.75 + 0.8) / 8),
        "mP@1": 1,
        "mP@5": pytest.approx(4 / 5),
        "mP@10": pytest.approx(4 / 5),
    }
    assert scores["medium"].metrics == {"mP@1": {"q0": 1}, "mP@5": {"q0": 0.8}, "mP@10": {"q0": 0.8}}
    # hard: a d e remain, positives at 0 and 1
    assert set(scores["hard"].means().values()) == {1}


def test_precision_at_k_looks_no_further_than_the_last_positive():
    names = [f"image{index}" for index in range(20)]
    similar = -np.arange(20, dtype=np.float32)[None]
    for positives, expected in (((0,), (1, 1, 1)), ((3,), (0, 1 / 4, 1 / 4)), ((0, 7), (1, 1 / 5, 2 / 8))):
        scores = score_protocols(
            {"medium": [query("q", [names[index] for index in positives])]}, names, similar
        )
        assert [scores["medium"].metrics[metric]["q"] for metric in METRICS] == pytest.approx(expected)


def test_ties_rank_in_the_databases_order():
    similar = np.zeros((1, 4), np.float32)
    for names, expected in (("bcda", 1 / 8), ("abcd", 1)):
        scores = score_protocols({"easy": [query("q", "a")]}, list(names), similar)
        assert scores["easy"].average_precisions["q"] == expected


def test_queries_without_positives_are_left_out_of_every_mean():
    labels = protocols([{"easy": "a"}, {"hard": "b"}, {"junk": "ab"}])
    scores = Scores(score_protocols(labels, ["a", "b"], np.array([[2, 1]] * 3, np.float32))).for_json("")[
        "protocols"
    ]
    assert scores["easy"]["AP"] == {
        "q0": 1,
        "q1": pytest.approx(math.nan, nan_ok=True),
        "q2": pytest.approx(math.nan, nan_ok=True),
    }
    assert scores["easy"]["mAP"] == 1
    assert scores["medium"]["mAP"] == pytest.approx((1 + 1 / 4) / 2)
    assert scores["medium"]["mP@1"] == 1 / 2
    assert (scores["hard"]["mAP"], scores["hard"]["mP@1"], scores["hard"]["mP@10"]) == (1 / 4, 0, 1 / 2)


def test_an_image_that_is_positive_and_junk_is_skipped_but_counts_in_the_recall():
    scores = score_protocols(
        {"medium": [query("q", "ab", [], "a")]}, ["a", "b"], np.array([[2, 1]], np.float32)
    )
    assert scores["medium"].average_precisions["q"] == 1 / 2
    assert scores["medium"].metrics["mP@1"]["q"] == 1


def test_positives_outside_the_database_count_as_not_retrieved():
    names, similar = ["a", "b"], np.array([[2, 1], [2, 1]], np.float32)
    scores = score_protocols({"easy": [query("some", "az"), query("all", "yz")]}, names, similar)
    assert scores["easy"].average_precisions == {"some": 1 / 2, "all": 0}
    assert scores["easy"].metrics["mP@5"] == {"some": 1 / 5, "all": 0}


def test_the_table_has_a_line_for_each_protocol_in_percent():
    labels = protocols([{"easy": "a", "junk": "c"}, {"easy": "b"}])
    scores = score_protocols(labels, list("abc"), np.array([[3, 2, 1], [3, 2, 1]], np.float32))
    # b is second: its trapezoid is (0 + 1/2)/2, and the mean with 1 is 5/8. One first image is positive.
    assert Scores(scores).format() == (
        "      mAP   mP@1   mP@5  mP@10\n"
        "E    62.5   50.0   75.0   75.0\n"
        "M    62.5   50.0   75.0   75.0\n"
        "H     nan    nan    nan    nan"
    )


def test_the_lines_of_the_table_are_of_one_length():
    scores = score_protocols(protocols([{"easy": "a"}]), ["a"], np.ones((1, 1), np.float32))
    lines = Scores(scores).format().splitlines()
    assert lines[1].split() == ["E", "100.0", "100.0", "100.0", "100.0"]
    assert len({len(line) for line in lines}) == 1


def test_results_json_takes_the_scores_and_has_null_for_what_is_undefined(tmp_path):
    scores = score_protocols(protocols([{"easy": "a"}]), ["a"], np.ones((1, 1), np.float32))
    write_results(tmp_path, Scores(scores).for_json(""))
    text = (tmp_path / "results.json").read_text().replace("\n", "").replace(" ", "")
    assert '"easy":{"mAP":1.0,"mP@1":1.0,"mP@5":1.0,"mP@10":1.0,"AP":{"q0":1.0}}' in text
    assert '"hard":{"mAP":null,"mP@1":null,"mP@5":null,"mP@10":null,"AP":{"q0":null}}' in text
