"""Google Landmarks v2: a small copy of the published layout, with scores computed by hand."""

import json

import pytest
from conftest import draw_image
from helpers import score_lines, write_run

from utils.data.open_dataset import labels_kind, read_folder
from utils.data.retrieval_dataset import Query
from utils.errors import UserError

SOME, MANY, NONE_FOUND, OUT = (f"{letter}bc{'0' * 13}" for letter in "0123")
"""Queries: with two positives, with 120, with one that is not retrieved, and an ignored one."""

INDEX = [f"{number:03x}{'e' * 13}" for number in range(130)]
EMPTY = frozenset()


def write_solution(path, *lines):
    path.write_text("\n".join(["id,images,Usage", *lines]) + "\n")


@pytest.fixture(params=[".", "test", "metadata"])
def landmarks(tmp_path, request):
    """A folder in the published layout, with the table in one of three folders. Images are empty files."""
    folder = tmp_path / "landmarks"
    for part, names in (("index", INDEX), ("test", [SOME, MANY, NONE_FOUND])):
        for name in names:
            path = folder.joinpath(part, *name[:3], f"{name}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (folder / request.param).mkdir(exist_ok=True)
    write_solution(
        folder / request.param / "retrieval_solution_v2.1.csv",
        f"{SOME},{INDEX[0]} {INDEX[7]},Private",
        f"{OUT},None,Ignored",
        f"{MANY},{' '.join(INDEX[:120])},Public",
        f"{NONE_FOUND},{INDEX[5]},Private",
    )
    return folder


def test_queries_are_the_labelled_images_of_test(landmarks):
    assert labels_kind(landmarks) == "Google Landmarks"
    data = read_folder(landmarks)
    private = [
        Query(SOME, SOME, None, frozenset({INDEX[0], INDEX[7]}), EMPTY, EMPTY),
        Query(NONE_FOUND, NONE_FOUND, None, frozenset({INDEX[5]}), EMPTY, EMPTY),
    ]
    public = [Query(MANY, MANY, None, frozenset(INDEX[:120]), EMPTY, EMPTY)]
    assert data.protocols == {"public": public, "private": private}
    assert data.queries == [private[0], public[0], private[1]]
    assert set(data.images) == set(INDEX)
    assert data.query_images[MANY] == landmarks / "test" / "1" / "b" / "c" / f"{MANY}.jpg"


def test_average_precision_is_that_of_the_first_100_images(landmarks, measure, tmp_path):
    rankings = {
        # Positives at ranks 1 and 101, from 1: 1 / min(2, 100) at 100, and both trapezoids of the area.
        SOME: [INDEX[0], *INDEX[10:109], INDEX[7]],
        MANY: INDEX[:120],  # 100 / min(120, 100)
        NONE_FOUND: [INDEX[0]],
    }
    run = write_run(tmp_path / "x.run", rankings)
    options = ["--dataset", landmarks, "--score-run", run, "--output", tmp_path / "out"]
    status, out, err = measure(*options, network=[])
    assert status == 0, err
    area = (1 + (1 / 100 + 2 / 101) / 2) / 2
    assert score_lines(out) == [
        "           mAP mAP@100",
        "public   100.0   100.0",
        f"private {100 * area / 2:>6.1f}    25.0",
    ]
    assert out.splitlines()[-1] == (
        "Protocol: the query's own image is not in the database; there are no junk images"
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())["protocols"]
    assert results["private"]["mAP@100"] == 0.25
    assert results["private"]["mAP"] == pytest.approx(area / 2)
    assert list(results["private"]["AP"]) == [SOME, NONE_FOUND]
    assert list(results["public"]["AP"]) == [MANY]


def test_images_are_ranked_and_scored(tmp_path, measure):
    for seed, path in enumerate(("index/a/a/a/aaa", "index/a/a/b/aab", "test/c/a/a/caa", "test/c/a/b/cab")):
        path = tmp_path / "small" / f"{path}{'0' * 13}.jpg"
        path.parent.mkdir(parents=True)
        draw_image(path, seed % 2)  # the first query equals the first image, the second query the second
    zeros = "0" * 13
    lines = [f"caa{zeros},aaa{zeros},Private", f"cab{zeros},aaa{zeros},Public"]
    write_solution(tmp_path / "small" / "retrieval_solution_v2.1.csv", *lines)
    status, out, err = measure("--dataset", tmp_path / "small", "--qe", "0")
    assert status == 0, err
    assert [line.split() for line in score_lines(out)[1:]] == [
        ["public", "25.0", "50.0"],  # the positive is second: (0 + 1/2) / 2, and 1/2 at 100
        ["private", "100.0", "100.0"],
    ]
    assert "queries are complete images" in out


def test_missing_images_of_the_database_are_a_note(landmarks, caplog):
    next(landmarks.rglob(f"{INDEX[5]}.jpg")).unlink()
    data = read_folder(landmarks)
    assert "1 images that are not in" in caplog.text
    assert data.queries[2].good == {INDEX[5]}


def test_missing_images_of_queries_are_an_error(landmarks):
    next(landmarks.rglob(f"{MANY}.jpg")).unlink()
    with pytest.raises(UserError, match=f"1 images of queries are missing .*{MANY}"):
        read_folder(landmarks)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SOME},{INDEX[0]},Test", "line 2: Usage 'Test' is unknown"),
        (f"../../../../x,{INDEX[0]},Public", "line 2: '../../../../x' is not the id of an image"),
        (f"{SOME},{INDEX[0]} 12,Public", "line 2: '12' is not the id"),
        (f"{SOME},{INDEX[0]},Public\n{SOME},{INDEX[1]},Private", f"line 3: {SOME} is also on line 2"),
        (f"{SOME},None,Ignored", "has no line that is Public or Private"),
        (f"{SOME},{INDEX[0]},Public,x", "line 2: has 4 values for 3 columns"),
    ],
)
def test_lines_that_are_not_valid(landmarks, line, message):
    (solution,) = landmarks.rglob("*.csv")
    write_solution(solution, line)
    with pytest.raises(UserError) as error:
        read_folder(landmarks)
    assert message in str(error.value)
