import copy
import json
import pickle
import shutil

import numpy as np
import pytest
from conftest import draw_image, write_query

from utils.data.open_dataset import labels_kind, read_folder
from utils.data.oxford_paris import read_dataset
from utils.data.retrieval_dataset import check_queries
from utils.data.revisited import has_revisited_labels, read_distractors, read_revisited_dataset
from utils.errors import UserError
from utils.images.loading import InputImage
from utils.prepare.distractors import add_distractors
from utils.prepare.verify import verify

LABELS = {
    "imlist": ["c", "a", "e", "b"],
    "qimlist": ["q", "p"],
    "gnd": [
        {"bbx": [1.5, 2.0, 30.0, 40.25], "easy": [0, 3], "hard": [1], "junk": [2]},
        {"bbx": [0.0, 0.0, 20.0, 20.0], "easy": [], "hard": [2, 3], "junk": []},
    ],
}


def write_labels(folder, labels=LABELS, name="gnd_roxford5k.pkl"):
    (folder / name).write_bytes(
        pickle.dumps(labels, 2) if name.endswith(".pkl") else json.dumps(labels).encode()
    )


def changed(**changes):
    return copy.deepcopy(LABELS) | changes


@pytest.fixture
def folder(tmp_path):
    """A small revisited set of images a, b, c, e and query images p, q."""
    folder = tmp_path / "data" / "ROxford"
    (folder / "jpg").mkdir(parents=True)
    for seed, name in enumerate("abcepq"):
        draw_image(folder / "jpg" / f"{name}.jpg", seed)
    write_labels(folder)
    return folder


def labels_of(query):
    return "".join(sorted(query.good)), "".join(sorted(query.ok)), "".join(sorted(query.junk))


def test_the_database_is_imlist_in_its_order_and_queries_are_apart(folder, caplog):
    data = read_revisited_dataset(folder)
    assert list(data.images.items()) == [(name, folder / "jpg" / f"{name}.jpg") for name in "caeb"]
    assert [(query.name, query.image, query.box) for query in data.queries] == [
        ("q", "q", (1.5, 2, 30, 40.25)),
        ("p", "p", (0, 0, 20, 20)),
    ]
    assert data.query_inputs()[0] == InputImage(folder / "jpg" / "q.jpg", (1.5, 2, 30, 40.25), "q")
    assert data.query_images == {name: folder / "jpg" / f"{name}.jpg" for name in "pq"}
    assert not caplog.records
    check_queries(data, 64)


def test_the_three_protocols_share_the_labels_out_to_good_ok_and_junk(folder):
    data = read_revisited_dataset(folder)
    actual = {name: list(map(labels_of, queries)) for name, queries in data.protocols.items()}
    assert actual == {
        "easy": [("bc", "", "ae"), ("", "", "be")],
        "medium": [("bc", "a", "e"), ("", "be", "")],
        "hard": [("", "a", "bce"), ("", "be", "")],
    }
    assert list(actual) == ["easy", "medium", "hard"]
    assert data.queries == data.protocols["medium"]
    for queries in data.protocols.values():
        assert [(query.name, query.image, query.box) for query in queries] == [
            (query.name, query.image, query.box) for query in data.queries
        ]


def test_beside_lab_the_revisited_labels_count_for_all_who_read_them(folder, caplog, capsys):
    (folder / "lab").mkdir()
    write_query(folder, "q_1", "a 0 0 40 40", good="b", ok="c", junk="e")
    for name in ("ROxford", "Mine"):
        renamed = folder.rename(folder.with_name(name))
        assert labels_kind(renamed) == "revisited"
        assert [query.name for query in read_folder(renamed).queries] == ["q", "p"]
        assert "lab/ in it is ignored" in caplog.text
        verify(renamed)
        assert "4 images, 2 queries" in capsys.readouterr().out
        folder = renamed


def test_a_folder_without_revisited_labels_is_read_by_lab_or_else_by_its_name(dataset, tmp_path):
    assert labels_kind(dataset) == "Oxford"
    assert [query.name for query in read_folder(dataset).queries] == ["q_1"]
    renamed = dataset.rename(dataset.with_name("ROxford"))
    assert labels_kind(renamed) == "Oxford"
    shutil.rmtree(renamed / "lab")
    assert labels_kind(renamed) == "revisited"
    with pytest.raises(UserError, match=r"neither gnd_roxford5k\.pkl"):
        read_folder(renamed)
    renamed = renamed.rename(renamed.with_name("Photographs"))
    assert labels_kind(renamed) is None
    with pytest.raises(UserError, match="has no folder lab/"):
        read_folder(renamed)


def test_labels_as_numpys_arrays_or_as_json_are_read_alike(folder):
    expected = read_revisited_dataset(folder)
    assert list(expected.images) == list("caeb")
    arrays = copy.deepcopy(LABELS)
    for query in arrays["gnd"]:
        query |= {key: np.array(query[key], int) for key in ("easy", "hard", "junk")}
        query["bbx"] = np.array(query["bbx"])
    write_labels(folder, arrays)
    assert read_revisited_dataset(folder) == expected
    (folder / "gnd_roxford5k.pkl").unlink()
    write_labels(folder, name="gnd_rparis6k.json")
    assert read_revisited_dataset(folder) == expected


def test_the_published_file_counts_where_there_is_json_as_well(folder):
    write_labels(folder, changed(imlist=list("abce")), "gnd_roxford5k.json")
    assert list(read_revisited_dataset(folder).images) == list("caeb")


@pytest.mark.parametrize("name", ["gnd_roxford5k", "gnd_rparis6k"])
@pytest.mark.parametrize("suffix", [".pkl", ".json"])
def test_a_folder_of_any_name_may_hold_the_labels(tmp_path, name, suffix):
    (tmp_path / "lab").mkdir()
    (tmp_path / "gnd_other.pkl").touch()
    assert not has_revisited_labels(tmp_path)
    (tmp_path / (name + suffix)).touch()
    assert has_revisited_labels(tmp_path)


def test_the_error_for_missing_labels_names_the_command_to_get_them(folder):
    assert has_revisited_labels(folder)
    (folder / "gnd_roxford5k.pkl").unlink()
    assert not has_revisited_labels(folder)
    with pytest.raises(
        UserError, match=r"neither gnd_roxford5k\.pkl .*Prepare_Datasets\.py ROxford or RParis"
    ):
        read_revisited_dataset(folder)


def test_labels_of_two_sets_are_an_error(folder):
    write_labels(folder, name="gnd_rparis6k.json")
    with pytest.raises(UserError, match=r"two sets, gnd_roxford5k\.pkl and gnd_rparis6k\.json"):
        read_revisited_dataset(folder)


def test_missing_images_are_counted_and_the_first_is_named(folder):
    for name in ("a", "b", "p"):
        (folder / "jpg" / f"{name}.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 3 of its 6 images \(first: a\): .*Datasets\.py ROxford$"):
        read_revisited_dataset(folder)
    for name in ("a", "b"):
        draw_image(folder / "jpg" / f"{name}.jpg")
    with pytest.raises(UserError, match=r"lacks 1 of its 6 images \(first: p\)"):
        read_revisited_dataset(folder)


def test_an_image_listed_twice_is_an_error(folder):
    write_labels(folder, changed(imlist=["c", "a", "c", "b"]))
    with pytest.raises(UserError, match=r"lists 1 images twice \(c\)"):
        read_revisited_dataset(folder)


def test_a_query_image_may_be_in_the_database_as_well(folder):
    write_labels(folder, changed(imlist=["c", "q", "a", "e", "b"]))
    data = read_revisited_dataset(folder)
    assert list(data.images) == ["c", "q", "a", "e", "b"]
    assert labels_of(data.queries[0]) == ("ce", "q", "a")
    assert data.query_inputs()[0].path == data.images["q"]


def test_queries_of_one_image_have_different_names(folder):
    draw_image(folder / "jpg" / "q_2.jpg")
    gnd = [LABELS["gnd"][number] for number in (0, 1, 0, 1, 0)]
    write_labels(folder, changed(qimlist=["q", "p", "q", "q_2", "q"], gnd=gnd))
    data = read_revisited_dataset(folder)
    assert [query.name for query in data.queries] == ["q", "p", "q_3", "q_2", "q_4"]
    assert [query.image for query in data.queries] == ["q", "p", "q", "q_2", "q"]
    assert [image.path.stem for image in data.query_inputs()] == ["q", "p", "q", "q_2", "q"]
    assert data.query_inputs()[2].box == (1.5, 2, 30, 40.25)


@pytest.fixture
def with_distractors(folder, tmp_path):
    """The set with two folders of distractors, as Prepare_Datasets.py makes it."""
    for name in ("2/x.jpg", "10/x.png", "10/a.jpg", "10/old mill .jpg"):
        path = tmp_path / "more" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(path)
    return add_distractors(folder, [tmp_path / "more"], tmp_path / "data" / "Mine")


def test_distractors_are_behind_the_labelled_images_in_the_order_of_their_names(with_distractors, caplog):
    data = read_revisited_dataset(with_distractors)
    assert list(data.images) == [*"caeb", "10_a", "10_old mill ", "10_x", "2_x"]
    assert data.images["10_x"] == with_distractors / "jpg" / "10_x.png"
    assert list(data.query_images) == ["q", "p"]
    assert not caplog.records


def test_distractors_added_to_distractors_are_all_listed(with_distractors, tmp_path):
    before = read_distractors(with_distractors)
    draw_image(tmp_path / "more" / "2" / "y.jpg")
    (tmp_path / "more" / "2" / "x.jpg").unlink()
    (tmp_path / "more" / "10").rename(tmp_path / "elsewhere")
    twice = add_distractors(with_distractors, [tmp_path / "more"], tmp_path / "data" / "Twice")
    assert list(read_revisited_dataset(twice).images)[4:] == ["10_a", "10_old mill ", "10_x", "2_x", "2_y"]
    assert read_distractors(with_distractors) == before


def test_distractors_without_a_suffix_in_folders_with_a_dot_are_in_the_database(folder, tmp_path):
    (tmp_path / "more" / "part.1").mkdir(parents=True)
    for name in ("1", "2"):
        draw_image(tmp_path / "image.jpg")
        (tmp_path / "image.jpg").rename(tmp_path / "more" / "part.1" / name)
    target = add_distractors(folder, [tmp_path / "more"], tmp_path / "data" / "Mine")
    assert list(read_revisited_dataset(target).images)[4:] == ["part_1_1", "part_1_2"]


def test_a_distractor_that_is_a_relative_link_is_the_image_that_it_points_to(folder, tmp_path):
    draw_image(tmp_path / "image.jpg")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").symlink_to("../image.jpg")
    target = add_distractors(folder, [tmp_path / "more"], tmp_path / "data" / "Mine")
    image = read_revisited_dataset(target).images["x"]
    assert not image.is_symlink()
    assert image.read_bytes() == (tmp_path / "image.jpg").read_bytes()


def test_folders_and_broken_links_in_jpg_are_not_in_the_set_with_distractors(folder, tmp_path):
    (folder / "jpg" / "@eaDir").mkdir()
    (folder / "jpg" / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "more").mkdir()
    draw_image(tmp_path / "more" / "x.jpg")
    target = add_distractors(folder, [tmp_path / "more"], tmp_path / "data" / "Mine")
    assert list(read_revisited_dataset(target).images) == [*"caeb", "x"]
    assert not (target / "jpg" / "@eaDir").exists()


def test_strays_are_left_out_with_a_note(with_distractors, caplog):
    for name in ("z", "paris_louvre_000136"):
        draw_image(with_distractors / "jpg" / f"{name}.jpg")
    assert "z" not in read_revisited_dataset(with_distractors).images
    notes = [record.message for record in caplog.records]
    assert len(notes) == 2
    assert "published corrupt" in notes[0]
    assert "left out 1 images" in notes[1]
    assert "(z)" in notes[1]
    assert str(with_distractors / "distractors.txt") in notes[1]


def test_a_list_of_the_user_may_name_labelled_and_unreadable_images(folder, caplog):
    for name in ("z", "paris_louvre_000136"):
        draw_image(folder / "jpg" / f"{name}.jpg")
    names = sorted(path.stem for path in (folder / "jpg").iterdir())
    (folder / "distractors.txt").write_bytes("\ufeff".encode() + "\r\n".join([*names, ""]).encode())
    assert list(read_revisited_dataset(folder).images) == [*"caeb", "z"]
    assert len(caplog.records) == 1


def test_missing_distractors_are_missing_images(with_distractors):
    (with_distractors / "jpg" / "2_x.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of its 10 images \(first: 2_x\): .*ROxford --distractors"):
        read_revisited_dataset(with_distractors)


def test_distractors_of_oxfords_layout_are_listed_too_and_change_nothing(dataset, tmp_path):
    (tmp_path / "more").mkdir()
    draw_image(tmp_path / "more" / "0.jpg")
    target = add_distractors(dataset, [tmp_path / "more"], tmp_path / "data" / "Tiny105k")
    assert read_distractors(target) == ["0"]
    data = read_dataset(target)
    assert list(data.images) == list("0abcd")
    assert data.protocols == {}
    assert data.query_images == {"a": target / "jpg" / "a.png"}


def test_a_box_outside_its_image_names_the_query(folder):
    labels = copy.deepcopy(LABELS)
    labels["gnd"][1]["bbx"] = [64, 0, 90, 48]
    write_labels(folder, labels)
    with pytest.raises(UserError, match="query p: the box 64 0 90 48 has no pixel inside"):
        check_queries(read_revisited_dataset(folder), 64)


def test_a_complete_set_verifies_under_any_name(folder, with_distractors, capsys):
    verify(folder)
    assert capsys.readouterr().out.splitlines() == [f"{folder}: 4 images, 2 queries", f"{folder} is complete"]
    verify(with_distractors)
    assert capsys.readouterr().out.splitlines()[0] == f"{with_distractors}: 8 images, 2 queries"


def test_verifying_finds_boxes_outside_and_broken_images_of_queries_too(folder, capsys):
    labels = copy.deepcopy(LABELS)
    labels["gnd"][0]["bbx"][2] = 70
    write_labels(folder, labels)
    for name in ("e", "p"):
        (folder / "jpg" / f"{name}.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match="has 3 problems"):
        verify(folder)
    problems = capsys.readouterr().out.splitlines()[1:]
    assert problems[0] == "query q: its box 1.5 2 70 40.25 is empty or exceeds its image, 64 x 48"
    assert [problem.split(" cannot")[0] for problem in problems[1:]] == [
        str(folder / "jpg" / f"{name}.jpg") for name in ("e", "p")
    ]


def test_verifying_tells_of_missing_images_and_missing_labels(folder):
    (folder / "jpg" / "q.jpg").unlink()
    with pytest.raises(UserError, match="lacks 1 of its 6 images"):
        verify(folder)
    (folder / "gnd_roxford5k.pkl").unlink()
    with pytest.raises(UserError, match="neither gnd_roxford5k"):
        verify(folder)
