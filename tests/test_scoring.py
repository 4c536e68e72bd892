import math

import numpy as np
import pytest
from conftest import golden_json
from helpers import rank_names

from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.scoring.compute_ap import compute_ap
from utils.scoring.queries import labelled_images, ranks_by_name, score_queries


def query(name, good=(), ok=(), junk=()):
    return Query(name, "", (0, 0, 1, 1), frozenset(good), frozenset(ok), frozenset(junk))


def test_equals_vggs_program_on_its_golden_rankings():
    for number, case in enumerate(golden_json("average_precision")):
        names = sorted(case["ranking"])
        similar = np.array([[-case["ranking"].index(name) for name in names]], np.float32)
        scores = score_queries(
            [query("q", case["good"], case["ok"], case["junk"])], rank_names(names, similar)
        )
        assert f"{scores['q']:.6g}" == f"{case['ap']:.6g}", number


@pytest.mark.parametrize("levels", [3, 40, 10**6])
def test_equals_a_loop_over_the_ranking_with_ties_and_absent_names(levels):
    rng = np.random.default_rng(levels)
    names = [f"image{index}" for index in range(200)]
    labelled = [*names, "absent1", "absent2"]
    similar = rng.integers(0, levels, (30, 200)).astype(np.float32)
    queries = []
    for number in range(30):
        good, ok, junk = (rng.choice(labelled, size, replace=False).tolist() for size in (9, 15, 30))
        queries.append(query(f"q{number}", good, ok, junk))
    expected = {}
    for item, row in zip(queries, similar, strict=True):
        ranking = sorted(range(200), key=lambda index, row=row: (-row[index], index))
        expected[item.name] = compute_ap([names[index] for index in ranking], item.good, item.ok, item.junk)
    assert score_queries(queries, rank_names(names, similar)) == expected
    assert len(set(expected.values())) > 10


def test_scores_without_positives_are_undefined_and_without_retrieved_positives_0():
    scores = score_queries([query("none", junk=["a"]), query("absent", good=["z"])], [{"a": 0, "b": 1}] * 2)
    assert math.isnan(scores["none"])
    assert scores["absent"] == 0


def test_labelled_images_are_those_of_all_protocols_that_are_in_the_database():
    easy, hard = query("q", good="ab", junk="e"), query("q", good="dz", junk="b")
    data = RetrievalDataset(None, {}, [easy], {}, {"easy": [easy], "hard": [hard]})
    (labelled,) = labelled_images(data, list("gedcba"))
    assert labelled == {"a": 5, "b": 4, "d": 2, "e": 1}
    (labelled,) = labelled_images(RetrievalDataset(None, {}, [easy], {}), list("gedcba"))
    assert labelled == {"a": 5, "b": 4, "e": 1}
    assert ranks_by_name([labelled], [np.array([7, 0, 2])]) == [{"a": 7, "b": 0, "e": 2}]
