import os
from pathlib import Path

import pytest
from conftest import draw_image, write_query

from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES, find_dataset, read_dataset
from utils.data.retrieval_dataset import check_queries
from utils.errors import UserError
from utils.images.loading import InputImage


def test_reads_images_queries_and_labels_in_the_order_of_their_files(dataset):
    write_query(dataset, "q_0", "oxc1_b 1.5 2 30 40.25", good="a\nc", junk="d")
    data = read_dataset(dataset)
    assert list(data.images.items()) == [(name, dataset / "jpg" / f"{name}.png") for name in "abcd"]
    assert [query.name for query in data.queries] == ["q_0", "q_1"]
    query = data.queries[0]
    assert (query.image, query.box) == ("b", (1.5, 2, 30, 40.25))
    assert (query.good, query.ok, query.junk) == ({"a", "c"}, set(), {"d"})
    assert data.query_inputs()[0] == InputImage(dataset / "jpg" / "b.png", (1.5, 2, 30, 40.25), "q_0")


def test_what_is_no_image_is_ignored_with_a_note(dataset, caplog):
    for name in ("Thumbs.db", ".DS_Store", "._a.png", "notes.txt"):
        (dataset / "jpg" / name).write_bytes(b"x")
    assert list(read_dataset(dataset).images) == list("abcd")
    assert "left out 2 files that are not images" in caplog.text  # hidden files are not counted


def test_images_published_unreadable_are_left_out(dataset, caplog):
    assert len(CORRUPT_PARIS_IMAGES) == 20
    draw_image(dataset / "jpg" / "paris_louvre_000136.jpg")
    draw_image(dataset / "jpg" / "paris_louvre_000137.jpg")
    assert list(read_dataset(dataset).images) == [*"abcd", "paris_louvre_000137"]
    assert "paris_louvre_000136" in caplog.text


def test_labels_of_unknown_images_are_counted_once_and_kept(dataset, caplog):
    write_query(dataset, "q_2", "b 0 0 9 9", good="nowhere", ok="elsewhere")
    write_query(dataset, "q_3", "c 0 0 9 9", good="nowhere")
    assert read_dataset(dataset).queries[1].good == {"nowhere"}
    assert [record.message for record in caplog.records if "the labels name 2 images" in record.message]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "a 1 2 3", "a 1 2 x 4", "a 0 0 nan 10", "a 0 0 10 inf", "a, 1, 2, 3, 4", "a 0 0 1_0 10"),
        *("a 0 0 \u0661\u0660 10", "a 0 0 1e999 10", "a 0 0 0x10 10", f"a 0 0 {'1' * 200_000}x 10"),
    ],
)
def test_a_malformed_query_file_is_named(dataset, text):
    write_query(dataset, "q_2", text)
    with pytest.raises(UserError, match=r"q_2_query\.txt is not valid"):
        read_dataset(dataset)


def test_a_query_file_that_is_no_text_is_named(dataset):
    (dataset / "lab" / "q_1_query.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"q_1_query\.txt, line 1: cannot be read as text"):
        read_dataset(dataset)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_label_files_in_another_encoding_are_named_with_the_line(dataset, encoding):
    (dataset / "lab" / "q_1_good.txt").write_bytes(b"b\n" + "é\n".encode(encoding))
    with pytest.raises(UserError, match=r"q_1_good\.txt, line 2: cannot be read as text: save it as UTF-8"):
        read_dataset(dataset)


def test_sides_of_a_box_are_decimal_numbers(dataset):
    write_query(dataset, "q_2", "a -1.5 .25 +4e1 40.")
    assert read_dataset(dataset).queries[1].box == (-1.5, 0.25, 40.0, 40.0)


def test_a_query_of_an_absent_image_is_named(dataset):
    write_query(dataset, "q_2", "oxc1_z 0 0 9 9")
    with pytest.raises(UserError, match="query q_2: its image z is not"):
        read_dataset(dataset)


def test_a_missing_label_file_is_named(dataset):
    (dataset / "lab" / "q_1_junk.txt").unlink()
    with pytest.raises(UserError, match=r"q_1_junk\.txt is missing"):
        read_dataset(dataset)


@pytest.mark.parametrize("name", ["jpg", "lab"])
def test_a_missing_folder_is_named(dataset, name):
    (dataset / name).rename(dataset / "elsewhere")
    with pytest.raises(UserError, match=f"has no folder {name}/"):
        read_dataset(dataset)


def test_empty_folders_are_errors(dataset):
    for path in (dataset / "lab").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no queries in"):
        read_dataset(dataset)
    for path in (dataset / "jpg").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"no images in \S*jpg\Z"):
        read_dataset(dataset)
    (dataset / "jpg" / "notes").write_text("no image")
    with pytest.raises(UserError, match=r"no images in .*jpg: its files \(notes\) have neither the suffix"):
        read_dataset(dataset)
    (dataset / "jpg" / "paris").mkdir()
    with pytest.raises(
        UserError, match=r"no images directly in .*jpg: move the images in its folders \(paris/\) there"
    ):
        read_dataset(dataset)


def test_images_in_folders_of_jpg_are_not_in_the_database_and_a_note_says_so(dataset, caplog):
    (dataset / "jpg" / "paris").mkdir()
    draw_image(dataset / "jpg" / "paris" / "e.png")
    assert list(read_dataset(dataset).images) == list("abcd")
    assert "left out 1 folders, since only images directly in jpg/ count" in caplog.text
    assert "(paris)" in caplog.text


def test_images_without_a_suffix_are_in_the_database(dataset, caplog):
    for name in "abcd":
        (dataset / "jpg" / f"{name}.png").rename(dataset / "jpg" / name)
    (dataset / "jpg" / "README").write_text("no image")
    data = read_dataset(dataset)
    assert data.images == {name: dataset / "jpg" / name for name in "abcd"}
    check_queries(data, 64)
    assert "left out 1 files that are not images" in caplog.text


def test_two_files_of_one_name_are_an_error(dataset):
    draw_image(dataset / "jpg" / "a.jpg")
    with pytest.raises(UserError, match="the same image name, a"):
        read_dataset(dataset)


def test_a_data_set_is_given_by_name_or_by_path(dataset, tmp_path):
    assert find_dataset("Tiny", tmp_path / "data") == dataset
    assert find_dataset(str(dataset), tmp_path) == dataset
    with pytest.raises(UserError, match=r"no data set at .*Oxford.*--dataset Mini"):
        find_dataset("Oxford", tmp_path / "data")


def test_a_path_that_begins_with_a_dot_is_no_name(dataset, tmp_path, monkeypatch):
    (dataset / "datasets" / "jpg").mkdir(parents=True)
    monkeypatch.chdir(dataset)
    folders = (
        find_dataset(path, Path("datasets")).resolve() for path in (".", "./jpg", "../" + dataset.name)
    )
    assert list(folders) == [dataset, dataset / "jpg", dataset]
    assert find_dataset("jpg", Path("datasets")).resolve() == dataset / "datasets" / "jpg"


def test_a_box_outside_its_image_names_the_query(dataset):
    write_query(dataset, "q_2", "b 64 0 90 48")
    with pytest.raises(UserError, match="query q_2: the box 64 0 90 48 has no pixel inside"):
        check_queries(read_dataset(dataset), 64)


def test_an_unreadable_query_image_names_the_query(dataset):
    (dataset / "jpg" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"query q_1: .*a\.png cannot be decoded"):
        check_queries(read_dataset(dataset), 64)


def test_a_name_may_have_spaces(dataset):
    (dataset / "jpg" / "a.png").rename(dataset / "jpg" / "the old mill.png")
    (dataset / "jpg" / "b.png").rename(dataset / "jpg" / "mill, 2.png")
    write_query(dataset, "q_1", "oxc1_the old mill 1 2 30 40")
    (dataset / "lab" / "q_1_good.txt").write_text("mill, 2\r\n\n c\n")
    query = read_dataset(dataset).queries[0]
    assert (query.image, query.box) == ("the old mill", (1, 2, 30, 40))
    assert query.good == {"mill, 2", "c"}


def test_a_query_of_an_image_with_the_prefix_of_oxford_is_not_the_image_without_it(dataset):
    (dataset / "jpg" / "b.png").rename(dataset / "jpg" / "oxc1_a.png")
    write_query(dataset, "q_1", "oxc1_a 1 2 30 40")
    write_query(dataset, "q_2", "oxc1_a")
    write_query(dataset, "q_3", "oxc1_c 1 2 30 40")
    assert [query.image for query in read_dataset(dataset).queries] == ["oxc1_a", "oxc1_a", "c"]


def test_labels_may_begin_with_the_mark_of_windows_editors(dataset):
    (dataset / "lab" / "q_1_good.txt").write_bytes("\ufeffb\n".encode())
    assert read_dataset(dataset).queries[0].good == {"b"}


@pytest.mark.parametrize("name", [b"two\nlines.jpg", b"\xff.jpg", b"a\x1b[1m.jpg"])
def test_a_name_that_no_label_can_hold_is_an_error(dataset, name):
    (dataset / "jpg" / os.fsdecode(name)).touch()
    with pytest.raises(UserError, match="a label cannot hold this name") as raised:
        read_dataset(dataset)
    assert str(raised.value).isprintable()


def test_a_link_to_nowhere_is_an_image_that_cannot_be_decoded(dataset):
    (dataset / "jpg" / "e.jpg").symlink_to("nowhere")
    assert "e" in read_dataset(dataset).images


def test_a_name_too_long_for_a_folder_is_no_data_set(tmp_path):
    with pytest.raises(UserError, match="no data set at"):
        find_dataset("x" * 5000, tmp_path)
