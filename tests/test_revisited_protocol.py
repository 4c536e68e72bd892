import math

import numpy as np
import pytest
from reference import average_precision

from utils.data.oxford_paris import Query
from utils.scoring.report import write_results
from utils.scoring.revisited_protocol import KAPPAS, score_protocols
from utils.scoring.scores import Scores

LEVELS = ("easy", "hard", "junk")


def query(name, good=(), ok=(), junk=()):
    return Query(name, "", (0, 0, 1, 1), frozenset(good), frozenset(ok), frozenset(junk))


def protocols(labels):
    """Queries of the three protocols from names by level, a dict a query."""
    found = {"easy": [], "medium": [], "hard": []}
    for number, levels in enumerate(labels):
        easy, hard, junk = (list(levels.get(level, ())) for level in LEVELS)
        found["easy"].append(query(f"q{number}", easy, [], junk + hard))
        found["medium"].append(query(f"q{number}", easy, hard, junk))
        found["hard"].append(query(f"q{number}", [], hard, junk + easy))
    return found


def walked(ranking, positives, junk):
    """Average precision and precisions at 1, 5, 10, walking a ranking as the published evaluation does."""
    if not positives:
        return [math.nan] * 4
    ranking = [image for image in ranking if image not in junk]
    at = [index for index, image in enumerate(ranking) if image in positives]
    precisions = []
    for k in (1, 5, 10):
        k = min(k, max(at) + 1)
        precisions.append(sum(r + 1 <= k for r in at) / k)
    return [average_precision(ranking, positives), *precisions]


def walked_means(labels, names, similar):
    """By protocol the four means and each query's average precision."""
    expected = {}
    looked_for = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
    for protocol, wanted in looked_for.items():
        rows = []
        for levels, row in zip(labels, similar, strict=True):
            ranking = [
                names[place] for place in sorted(range(len(names)), key=lambda at, row=row: (-row[at], at))
            ]
            positives, junk = set(), set()
            for level in LEVELS:
                (positives if level in wanted else junk).update(levels.get(level, ()))
            rows.append(walked(ranking, positives, junk))
        counted = [row for row in rows if not math.isnan(row[0])]
        means = [sum(column) / len(counted) for column in zip(*counted, strict=True)] or [math.nan] * 4
        expected[protocol] = (means, [row[0] for row in rows])
    return expected


def assert_equals_the_walk(labels, names, similar):
    found = score_protocols(protocols(labels), names, similar)
    expected = walked_means(labels, names, similar)
    assert list(found) == list(expected) == ["easy", "medium", "hard"]
    for protocol, (means, averages) in expected.items():
        scores = found[protocol]
        assert list(scores.means()) == ["mAP", "mP@1", "mP@5", "mP@10"]
        np.testing.assert_allclose(list(scores.means().values()), means, rtol=1e-12, atol=0)
        np.testing.assert_allclose(list(scores.average_precisions.values()), averages, rtol=1e-12, atol=0)
        assert list(scores.average_precisions) == [f"q{number}" for number in range(len(labels))]
    return found


@pytest.mark.parametrize("values", [2, 30, 10**7])
@pytest.mark.parametrize("seed", range(4))
def test_random_rankings_score_as_walking_through_them_does(values, seed):
    """With many ties, some and none; each level is empty for some queries."""
    rng = np.random.default_rng(seed)
    names = [f"image{place}" for place in rng.permutation(120)]
    similar = rng.integers(0, values, (25, 120)).astype(np.float32)
    labels = []
    for number in range(25):
        sizes = rng.integers(0, 20, 3) * (rng.random(3) < 0.8)
        if number % 5 == 0:
            sizes = (sizes > 0).astype(int)
        labelled = np.split(rng.permutation(names)[: sizes.sum()], np.cumsum(sizes)[:-1])
        labels.append(dict(zip(LEVELS, map(list, labelled), strict=True)))
    found = assert_equals_the_walk(labels, names, similar)
    assert any(math.isnan(average) for average in found["easy"].average_precisions.values())


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
def test_corners_score_as_walking_through_the_ranking_does(labels):
    falling = np.arange(8, 0, -1, dtype=np.float32)
    for rows in ([falling], [falling, falling[::-1], np.zeros(8, np.float32)]):
        assert_equals_the_walk([labels] * len(rows), A_TO_H, np.array(rows))


def test_figures_worked_out_by_hand():
    """The ranking is a b c d e f; easy b, f; hard a, d; junk c."""
    labels = protocols([{"easy": "bf", "hard": "ad", "junk": "c"}])
    found = score_protocols(labels, list("fedcba"), np.arange(6, dtype=np.float32)[None])
    # easy: b e f remain, positives at 0 and 2: (1 + 1)/4 + (1/2 + 2/3)/4; the last is the third
    assert Scores(found).for_json("")["protocols"]["easy"] == {
        "mAP": pytest.approx(19 / 24),
        "mP@1": 1,
        "mP@5": pytest.approx(2 / 3),
        "mP@10": pytest.approx(2 / 3),
        "AP": {"q0": pytest.approx(19 / 24)},
    }
    # medium: a b d e f remain, positives at 0, 1, 2 and 4: three eighths of 1 + 1 and one of 3/4 + 4/5
    assert found["medium"].means() == {
        "mAP": pytest.approx((6 + 0.75 + 0.8) / 8),
        "mP@1": 1,
        "mP@5": pytest.approx(4 / 5),
        "mP@10": pytest.approx(4 / 5),
    }
    assert found["medium"].precisions == {1: {"q0": 1}, 5: {"q0": 0.8}, 10: {"q0": 0.8}}
    # hard: a d e remain, positives first
    assert set(found["hard"].means().values()) == {1}


def test_precision_at_k_looks_no_further_than_the_last_positive():
    names = [f"image{place}" for place in range(20)]
    similar = -np.arange(20, dtype=np.float32)[None]
    for positives, expected in (((0,), (1, 1, 1)), ((3,), (0, 1 / 4, 1 / 4)), ((0, 7), (1, 1 / 5, 2 / 8))):
        found = score_protocols(
            {"medium": [query("q", [names[place] for place in positives])]}, names, similar
        )
        assert [found["medium"].precisions[k]["q"] for k in KAPPAS] == pytest.approx(expected)


def test_ties_rank_in_the_databases_order():
    similar = np.zeros((1, 4), np.float32)
    for names, expected in (("bcda", 1 / 8), ("abcd", 1)):
        found = score_protocols({"easy": [query("q", "a")]}, list(names), similar)
        assert found["easy"].average_precisions["q"] == expected


def test_queries_without_positives_are_left_out_of_every_mean():
    labels = protocols([{"easy": "a"}, {"hard": "b"}, {"junk": "ab"}])
    found = Scores(score_protocols(labels, ["a", "b"], np.array([[2, 1]] * 3, np.float32))).for_json("")[
        "protocols"
    ]
    assert found["easy"]["AP"] == {
        "q0": 1,
        "q1": pytest.approx(math.nan, nan_ok=True),
        "q2": pytest.approx(math.nan, nan_ok=True),
    }
    assert found["easy"]["mAP"] == 1
    assert found["medium"]["mAP"] == pytest.approx((1 + 1 / 4) / 2)
    assert found["medium"]["mP@1"] == 1 / 2
    assert (found["hard"]["mAP"], found["hard"]["mP@1"], found["hard"]["mP@10"]) == (1 / 4, 0, 1 / 2)


def test_what_is_a_positive_and_junk_is_passed_over_but_counts_as_to_be_found():
    found = score_protocols(
        {"medium": [query("q", "ab", [], "a")]}, ["a", "b"], np.array([[2, 1]], np.float32)
    )
    assert found["medium"].average_precisions["q"] == 1 / 2
    assert found["medium"].precisions[1]["q"] == 1


def test_positives_that_are_not_in_the_database_count_as_never_found():
    names, similar = ["a", "b"], np.array([[2, 1], [2, 1]], np.float32)
    found = score_protocols({"easy": [query("some", "az"), query("all", "yz")]}, names, similar)
    assert found["easy"].average_precisions == {"some": 1 / 2, "all": 0}
    assert found["easy"].precisions[5] == {"some": 1, "all": 0}


def test_the_table_has_a_line_for_each_protocol_in_percent():
    labels = protocols([{"easy": "a", "junk": "c"}, {"easy": "b"}])
    found = score_protocols(labels, list("abc"), np.array([[3, 2, 1], [3, 2, 1]], np.float32))
    # b comes second: its trapezoid is (0 + 1/2)/2, the mean with 1 is 5/8; half of the first images are right
    assert Scores(found).format() == (
        "      mAP   mP@1   mP@5  mP@10\n"
        "E    62.5   50.0   75.0   75.0\n"
        "M    62.5   50.0   75.0   75.0\n"
        "H     nan    nan    nan    nan"
    )


def test_the_lines_of_the_table_are_of_one_length():
    found = score_protocols(protocols([{"easy": "a"}]), ["a"], np.ones((1, 1), np.float32))
    lines = Scores(found).format().splitlines()
    assert lines[1].split() == ["E", "100.0", "100.0", "100.0", "100.0"]
    assert len({len(line) for line in lines}) == 1


def test_results_json_takes_the_scores_and_has_null_for_what_is_undefined(tmp_path):
    found = score_protocols(protocols([{"easy": "a"}]), ["a"], np.ones((1, 1), np.float32))
    write_results(tmp_path, Scores(found).for_json(""))
    text = (tmp_path / "results.json").read_text().replace("\n", "").replace(" ", "")
    assert '"easy":{"mAP":1.0,"mP@1":1.0,"mP@5":1.0,"mP@10":1.0,"AP":{"q0":1.0}}' in text
    assert '"hard":{"mAP":null,"mP@1":null,"mP@5":null,"mP@10":null,"AP":{"q0":null}}' in text
