"""INRIA Holidays, read from the names of its images."""

import pytest
from conftest import draw_image
from helpers import score_lines, write_run

import Prepare_Datasets
from utils.data.open_dataset import labels_kind, read_folder
from utils.data.retrieval_dataset import Query
from utils.errors import UserError
from utils.program.run_command import run_command

NAMES = ["100000", "100001", "100002", "100100", "100101", "149900", "149901"]


@pytest.fixture(params=["jpg", "."])
def holidays(tmp_path, request):
    """A folder of the images of three groups, in jpg/ or in the folder itself."""
    folder = tmp_path / "data" / "photographs"
    (folder / request.param).mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        draw_image(folder / request.param / f"{name}.jpg", seed)
    return folder


def test_names_that_end_in_00_are_queries_for_their_group(holidays):
    assert labels_kind(holidays) == "Holidays"
    data = read_folder(holidays)
    assert list(data.images) == NAMES
    assert data.queries == [
        Query("100000", "100000", None, frozenset({"100001", "100002"}), frozenset(), frozenset({"100000"})),
        Query("100100", "100100", None, frozenset({"100101"}), frozenset(), frozenset({"100100"})),
        Query("149900", "149900", None, frozenset({"149901"}), frozenset(), frozenset({"149900"})),
    ]
    assert list(data.query_images) == ["100000", "100100", "149900"]


def test_a_ranking_is_scored_without_the_query(holidays, measure, tmp_path):
    rankings = {
        # Without the query: a wrong image, then both positives: the trapezoids (0 + 1/2 + 1/2 + 2/3) / 4.
        "100000": ["100000", "149900", "100001", "100002"],
        "100100": ["100101", "100100"],
        "149900": ["100000", "100001", "149901", "149900"],  # (0 + 1/3) / 2
    }
    run = write_run(tmp_path / "x.run", rankings)
    _, out, _ = measure("--dataset", holidays, "--score-run", run, network=[])
    expected = [(0 + 1 / 2 + 1 / 2 + 2 / 3) / 4, 1, (0 + 1 / 3) / 2]
    lines = [f"{query}: {100 * value:.2f}" for query, value in zip(rankings, expected, strict=True)]
    assert score_lines(out) == [*lines, "-" * 20, f"Mean: {100 * sum(expected) / 3:.1f}"]
    assert "the query's own image is junk" in out


def test_an_evaluation_describes_complete_images(holidays, measure):
    status, out, err = measure("--dataset", holidays, "--qe", "0")
    assert status == 0, err
    assert out.count("\n") == 6
    assert "queries are complete images; the query's own image is junk" in out


def test_a_group_without_its_query_is_refused(holidays):
    (path,) = holidays.rglob("100100.jpg")
    path.unlink()
    with pytest.raises(UserError, match=r"lacks 1 queries of its images \(100100\)"):
        read_folder(holidays)


@pytest.mark.parametrize("name", ["000000", "150000", "10000", "1000000"])
def test_other_numbers_are_no_holidays(tmp_path, name):
    draw_image(tmp_path / f"{name}.jpg")
    assert labels_kind(tmp_path) is None


def test_other_names_are_no_holidays(holidays):
    (path,) = holidays.rglob("100100.jpg")
    path.with_name("100100 copy.jpg").write_bytes(path.read_bytes())
    assert labels_kind(holidays) is None
    holidays.rename(holidays.with_name("Holidays"))
    with pytest.raises(UserError, match=r"100100 copy\.jpg has no name of Holidays"):
        read_folder(holidays.with_name("Holidays"))


def test_the_published_numbers_are_verified(holidays, capsys):
    assert run_command(lambda: Prepare_Datasets.command_line(["verify", str(holidays)])) == 0
    holidays.rename(holidays.with_name("Holidays"))
    words = ["verify", str(holidays.with_name("Holidays"))]
    assert run_command(lambda: Prepare_Datasets.command_line(words)) == 2
    out = capsys.readouterr().out
    assert "7 images instead of 1491" in out
    assert "3 queries instead of 500" in out
