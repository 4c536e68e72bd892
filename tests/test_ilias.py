"""ILIAS: a small copy of the published layout, with scores computed by hand."""

import pytest
from helpers import score_lines, write_run

from utils.data.open_dataset import labels_kind, read_folder
from utils.data.retrieval_dataset import Query
from utils.errors import UserError

FILES = [
    "bold_bimp_000/query/Q000_00.jpg",
    "bold_bimp_000/query/Q000_00_bbox.txt",
    "bold_bimp_000/query/T000.txt",
    "bold_bimp_000/pos/P000_00.jpg",
    "bold_bimp_000/pos/P000_00_bbox.txt",
    "bold_bimp_000/pos/P000_01.jpg",
    "zippy_999/query/Q999_00.jpg",
    "zippy_999/query/Q999_01.jpg",
    "zippy_999/pos/P999_00.jpg",
]
EMPTY = frozenset()


@pytest.fixture
def ilias(tmp_path):
    """A folder in the published layout with 1001 distractors of two archives. Images are empty files."""
    folder = tmp_path / "ilias"
    files = [f"ilias_core/{path}" for path in FILES]
    files += [f"yfcc100m/yfcc100m_{number % 2}/{number:06d}.jpg" for number in range(1001)]
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def test_positives_are_in_the_folder_of_their_object(ilias):
    assert labels_kind(ilias) == "ILIAS"
    data = read_folder(ilias)
    bold, zippy = frozenset({"P000_00", "P000_01"}), frozenset({"P999_00"})
    assert data.queries == [
        Query("Q000_00", "Q000_00", None, bold, EMPTY, EMPTY),
        Query("Q999_00", "Q999_00", None, zippy, EMPTY, EMPTY),
        Query("Q999_01", "Q999_01", None, zippy, EMPTY, EMPTY),
    ]
    assert list(data.images)[:4] == ["P000_00", "P000_01", "P999_00", "yfcc100m_0/000000"]
    assert len(data.images) == 3 + 1001
    assert data.query_images["Q999_01"] == ilias / "ilias_core/zippy_999/query/Q999_01.jpg"


def test_average_precision_is_that_of_the_first_1000_images(ilias, measure, tmp_path):
    distractors = list(read_folder(ilias).images)[3:]
    rankings = {
        "Q000_00": ["P000_01", *distractors[:999], "P000_00"],  # 1 / min(2, 1000)
        "Q999_00": [*distractors[:3], "P999_00"],  # 1 / 4
        "Q999_01": ["P000_00", *distractors],
    }
    run = write_run(tmp_path / "x.run", rankings)
    status, out, err = measure("--dataset", ilias, "--score-run", run, network=[])
    assert status == 0, err
    assert score_lines(out)[-1] == f"mAP@1000: {100 * (1 / 2 + 1 / 4 + 0) / 3:.1f}"
    assert score_lines(out)[-2].startswith("Mean: ")
    assert "the query's own image is not in the database; there are no junk images" in out


def test_objects_without_distractors_are_a_set(ilias):
    (ilias / "yfcc100m").rename(ilias / "elsewhere")
    assert list(read_folder(ilias).images) == ["P000_00", "P000_01", "P999_00"]


def test_archives_must_be_unpacked(ilias):
    (ilias / "yfcc100m").rename(ilias / "elsewhere")
    (ilias / "yfcc100m").mkdir()
    (ilias / "yfcc100m" / "yfcc100m_000.tar").touch()
    with pytest.raises(UserError, match="unpack its archives"):
        read_folder(ilias)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("zippy_999/pos/photo.jpg", "photo.jpg has no name of ILIAS"),
        ("zippy_999/pos/P000_00.jpg", "have the same name"),
        ("zippy_999/query/Q999_00.png", "have the same name"),
    ],
)
def test_names_that_do_not_suit(ilias, path, message):
    (ilias / "ilias_core" / path).touch()
    with pytest.raises(UserError, match=message):
        read_folder(ilias)
