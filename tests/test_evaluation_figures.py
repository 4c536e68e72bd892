import numpy as np
import pytest
from conftest import write_query
from helpers import rank_names
from PIL import Image
from scipy.integrate import trapezoid

import Measure_OxfordParis
from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.figures.evaluation import kind_of, query_curves
from utils.program.run_command import run_command
from utils.scoring.queries import score_queries

RMAC = ["--pooling", "rmac", "--no-whiten"]


@pytest.fixture
def measure(dataset, tmp_path):
    """A function that evaluates the tiny data set with figures and returns the exit status."""

    def run(*options):
        words = ["--dataset", str(dataset), "--S", "64", "--device", "cpu", "--workers", "0", *options]
        words += ["--backbone", "efficientnet_lite0", "--figures", str(tmp_path / "figures")]
        return run_command(lambda: Measure_OxfordParis.command_line(words))

    return run


def test_each_query_has_a_strip_and_curves(measure, dataset, tmp_path):
    write_query(dataset, "q_2", "b 0 0 40 40")  # without positives there is no recall
    assert measure(*RMAC) == 0
    drawn = sorted(
        str(path.relative_to(tmp_path / "figures")) for path in (tmp_path / "figures").rglob("*.*")
    )
    assert drawn == ["precision_recall/q_1.png", "results/q_1.png", "results/q_2.png"]
    for path in drawn:
        Image.open(tmp_path / "figures" / path).load()


def test_attention_is_drawn_where_there_is_any(measure, tmp_path):
    assert measure("--compare", "ra,rmac") == 0  # with the weights of the project
    (path,) = (tmp_path / "figures" / "attention").iterdir()
    assert path.name == "q_1.png"


def test_the_area_under_a_querys_curve_is_its_average_precision():
    rng = np.random.default_rng(0)
    names = [f"image{index}" for index in range(60)]
    queries = []
    for number in range(8):
        drawn = [names[index] for index in rng.permutation(60)[:20]]
        good, ok, junk = (frozenset(part) for part in (drawn[:6], [*drawn[6:9], "nowhere"], drawn[8:]))
        queries.append(Query(f"q{number}", "", (0, 0, 1, 1), good, ok, junk))
    queries.append(Query("none", "", (0, 0, 1, 1), frozenset(), frozenset(), frozenset()))
    similar = rng.standard_normal((9, 60)).astype(np.float32)
    ranks = rank_names(names, similar)
    curves = query_curves(RetrievalDataset(None, {}, queries, {}), ranks)
    precisions = score_queries(queries, ranks)
    assert set(curves) == {f"q{number}" for number in range(8)}
    for name, (recall, precision) in curves.items():
        assert trapezoid(precision, recall) == pytest.approx(precisions[name], abs=1e-6)


def test_an_image_in_both_lists_is_junk():
    query = Query("q", "", (0, 0, 1, 1), frozenset("a"), frozenset("bc"), frozenset("cd"))
    assert [kind_of(name, query) for name in "abcde"] == ["positive", "positive", "junk", "junk", "wrong"]
