"""Data sets made from a user's images by Prepare_Datasets.py labels."""

import json
from unicodedata import normalize

import pytest
from conftest import EMBEDDED, draw_image

import Prepare_Datasets
from Measure_OxfordParis import command_line as measure
from utils.data.open_dataset import read_folder
from utils.data.retrieval_dataset import Query
from utils.program.run_command import run_command

SIZE = (64, 48)
COMPLETE = (0, 0, *SIZE)
NONE = frozenset()


@pytest.fixture
def photographs(tmp_path):
    """A folder of two images of a castle, three of a tower, one of a well, and one without an object."""
    folder = tmp_path / "photographs"
    paths = ("castle/a.jpg", "castle/b.jpg", "tower/a.jpg", "tower/b.png", "tower/old/c.jpg", "well/a.jpg")
    for seed, path in enumerate((*paths, "sky.jpg")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        draw_image(folder / path, seed, SIZE)
    return folder


@pytest.fixture
def labels(tmp_path, capsys, photographs):
    """A function that labels the photographs and returns status, output, errors."""

    def run(*options, folder=photographs):
        words = ["labels", folder, "--datasets-dir", tmp_path / "data", *options]
        status = run_command(lambda: Prepare_Datasets.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def table(tmp_path, labels):
    """A function that labels the photographs by a table of the given lines."""

    def run(*lines, columns="query,image,label,x1,y1,x2,y2"):
        path = tmp_path / "labels.csv"
        path.write_text("\n".join([columns, *lines]) + "\n")
        return labels("--csv", path)

    return run


def read(tmp_path, name="photographs"):
    return read_folder(tmp_path / "data" / name)


def test_each_image_of_an_object_is_a_query_for_the_other_images(labels, tmp_path, photographs, caplog):
    caplog.set_level("INFO")
    assert labels() == (0, "", "")
    assert "note: 1 objects have a single image and get no query (well)" in caplog.text
    assert "1 images directly in" in caplog.text
    data = read(tmp_path)
    tower = {"tower_a", "tower_b", "tower_old_c"}
    assert data.queries == [
        Query("castle_1", "castle_a", COMPLETE, frozenset({"castle_b"}), NONE, frozenset({"castle_a"})),
        Query("castle_2", "castle_b", COMPLETE, frozenset({"castle_a"}), NONE, frozenset({"castle_b"})),
        *(
            Query(f"tower_{number}", name, COMPLETE, frozenset(tower - {name}), NONE, frozenset({name}))
            for number, name in enumerate(sorted(tower), start=1)
        ),
    ]
    assert list(data.images) == sorted({"castle_a", "castle_b", *tower, "well_a", "sky"})
    assert data.images["tower_old_c"].samefile(photographs / "tower" / "old" / "c.jpg")


def test_a_labelled_folder_can_be_evaluated_and_verified(labels, tmp_path, capsys):
    assert labels()[0] == 0
    words = [
        "--dataset",
        tmp_path / "data" / "photographs",
        "--S",
        "64",
        "--qe",
        "0",
        "--workers",
        "0",
        *EMBEDDED,
    ]
    assert run_command(lambda: measure([str(word) for word in words])) == 0
    assert capsys.readouterr().out.count("castle_") == 2
    words = ["verify", str(tmp_path / "data" / "photographs")]
    assert run_command(lambda: Prepare_Datasets.command_line(words)) == 0


def test_the_number_of_queries_per_object_is_limited_by_seed(labels, tmp_path):
    images = {}
    for seed in range(8):
        assert labels("--queries", 1, "--seed", seed)[0] == 0
        first = [(query.name, query.image) for query in read(tmp_path).queries]
        assert labels("--queries", 1, "--seed", seed)[0] == 0
        assert [(query.name, query.image) for query in read(tmp_path).queries] == first
        assert [name for name, _ in first] == ["castle_1", "tower_1"]
        images[seed] = first[1][1]
    assert len(set(images.values())) > 1
    assert labels("--queries", 2)[0] == 0
    assert len(read(tmp_path).queries) == 4


def test_only_data_sets_of_this_command_are_replaced(labels, tmp_path):
    assert labels()[0] == 0
    assert labels("--queries", 1)[0] == 0
    record = json.loads((tmp_path / "data" / "photographs" / "labels.json").read_text())
    assert (record["images"], record["queries"], record["settings"]["queries"]) == (7, 2, 1)
    (tmp_path / "data" / "photographs" / "results.json").touch()
    status, _, err = labels()
    assert status == 2 and "with files that labels did not write (results.json): move them away" in err
    assert (tmp_path / "data" / "photographs" / "results.json").exists()
    (tmp_path / "data" / "mine").mkdir()
    status, _, err = labels("--name", "mine")
    assert status == 2 and "mine was not written by the command labels: give another --name" in err
    assert not list((tmp_path / "data" / "mine").iterdir())


def test_unreadable_images_are_left_out_with_a_note(labels, tmp_path, photographs, caplog):
    (photographs / "castle" / "c.jpg").write_text("no image")
    assert labels()[0] == 0
    assert "note: left out 1 unreadable images (castle/c.jpg)" in caplog.text
    assert "castle_c" not in read(tmp_path).images


def test_images_without_a_suffix_may_be_in_a_folder_with_a_dot(labels, tmp_path, photographs):
    for name in ("a", "b"):
        path = photographs / "castle" / f"{name}.jpg"
        (photographs / "st. peter").mkdir(exist_ok=True)
        path.rename(photographs / "st. peter" / name)
    assert labels()[0] == 0
    data = read(tmp_path)
    assert [name for name in data.images if "peter" in name] == ["st_ peter_a", "st_ peter_b"]
    queries = [query for query in data.queries if "peter" in query.name]
    assert [(query.name, query.image, *query.good) for query in queries] == [
        ("st. peter_1", "st_ peter_a", "st_ peter_b"),
        ("st. peter_2", "st_ peter_b", "st_ peter_a"),
    ]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda folder: draw_image(folder / "castle" / "a.png"), (), "would have the same name, castle_a"),
        (lambda folder: (folder / "lab").mkdir(), (), "it is a data set already"),
        (lambda folder: None, ("--name", "Oxford"), "is the name of a published data set"),
        (lambda folder: None, ("--name", "Holidays"), "is the name of a published data set"),
        (lambda folder: None, ("--name", "RParis1M"), "is the name of a published data set"),
        (
            lambda folder: draw_image(folder / "castle" / f"{'ä' * 123}.png"),  # 7 + 246 + 4 bytes
            (),
            "ä.png: the name of its file in the data set, with those of its folders, has more than 255",
        ),
        (lambda folder: None, ("--name", "a/b"), "'a/b' cannot be the name of a data set"),
        (lambda folder: None, ("--csv", "x.csv", "--queries", "1"), "--queries has no effect with --csv"),
        (lambda folder: None, ("--datasets-dir", "photographs"), "give another --datasets-dir"),
        (
            lambda folder: (folder / "well" / "a\nb.jpg").symlink_to("a.jpg"),
            (),
            "a label cannot hold this name",
        ),
    ],
)
def test_folders_and_options_that_do_not_suit(
    labels, tmp_path, photographs, monkeypatch, make, options, message
):
    monkeypatch.chdir(tmp_path)
    make(photographs)
    status, _, err = labels(*options)
    assert status == 2 and err.count("error:") == 1 and message in err
    assert not (tmp_path / "data" / "photographs").exists()


def test_a_folder_without_objects_is_refused(labels, tmp_path):
    (tmp_path / "flat").mkdir()
    draw_image(tmp_path / "flat" / "a.jpg")
    status, _, err = labels(folder=tmp_path / "flat")
    assert status == 2 and "flat has no folder with two images" in err


def test_a_table_gives_queries_boxes_and_labels(table, tmp_path):
    status, _, err = table(
        "castle/a.jpg, castle/b.jpg, good, 1, 2, 30, 40.5",
        'castle/a.jpg, "tower/a.jpg", ok, 1.0, 2, 30, 40.5',
        "castle/a.jpg,well/a.jpg,absent,1,2,30,40.5",
        "",
        "castle/a.jpg,sky.jpg,good,0,0,10,10",
        "tower\\old\\c.jpg,tower/b.png,good",
        "tower/old/c.jpg,tower/old/c.jpg,ok",
        "tower/old/c.jpg,sky.jpg,junk",
    )
    assert status == 0, err
    own, of_castle = frozenset({"castle_a"}), frozenset({"castle_b"})
    data = read(tmp_path)
    assert data.queries == [
        Query("castle_a_1", "castle_a", (1, 2, 30, 40.5), of_castle, frozenset({"tower_a"}), own),
        Query("castle_a_2", "castle_a", (0, 0, 10, 10), frozenset({"sky"}), NONE, own),
        Query(
            "tower_old_c_1",
            "tower_old_c",
            COMPLETE,
            frozenset({"tower_b"}),
            frozenset({"tower_old_c"}),
            frozenset({"sky"}),
        ),
    ]
    assert len(data.images) == 7


@pytest.mark.parametrize(("written", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_table_knows_both_forms_of_letters_with_accents(table, tmp_path, photographs, written, named):
    (photographs / "tower").rename(photographs / normalize(written, "Türme"))
    status, _, err = table(f"castle/a.jpg,{normalize(named, 'Türme')}\\a.jpg,good")
    assert status == 0, err
    assert [query.good for query in read(tmp_path).queries] == [{normalize(written, "Türme_a")}]


def test_the_columns_of_a_table_can_have_any_order(table, tmp_path):
    status, _, err = table("good,by Ann,castle/b.jpg,castle/a.jpg", columns="\ufefflabel, note, Image, Query")
    assert status == 0, err
    assert [(query.image, query.good) for query in read(tmp_path).queries] == [("castle_a", {"castle_b"})]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["castle/x.jpg,castle/b.jpg,good"], "line 2: no readable image 'castle/x.jpg' in"),
        (
            ["", "castle/a.jpg,castle/b.jpg,god"],
            "line 3: the label 'god' is not one of good, ok, junk, absent",
        ),
        (["castle/a.jpg,castle/b.jpg,good,1,2,3"], "line 2: the box is not x1,y1,x2,y2 in pixels"),
        (["castle/a.jpg,castle/b.jpg,good,9,9,9,20"], "line 2: the box 9 9 9 20 has no pixel inside"),
        (["castle/a.jpg,castle/b.jpg,good,70,9,90,20"], "line 2: the box 70 9 90 20 has no pixel inside"),
        (["castle/a.jpg,castle/b.jpg,good,1,2,3,4,5"], "line 2: has 8 values for 7 columns"),
        (['castle/a.jpg,"castle/b.jpg,good'], "line 2: unexpected end of data"),
        (
            ["castle/a.jpg,castle/b.jpg,good", "castle/a.jpg,castle/b.jpg,junk"],
            "line 3: castle/b.jpg has the label good on an earlier line",
        ),
        (
            ["castle/a.jpg,castle/b.jpg,good,1,1,9,9", "castle/a.jpg,sky.jpg,good"],
            "line 3: some lines of this query have a box, others have none",
        ),
        ([], "labels.csv has no labels"),
    ],
)
def test_wrong_lines_are_named(table, tmp_path, lines, message):
    status, out, err = table(*lines)
    assert (status, out, err.count("error:")) == (2, "", 1) and message in err
    assert not (tmp_path / "data").exists()


def test_a_table_without_columns_is_refused(table):
    _, _, err = table(columns="castle/a.jpg,castle/b.jpg,good")
    assert "line 1: expected the columns query,image,label or" in err
