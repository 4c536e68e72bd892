"""The line on the protocol of an evaluation."""

import json

import pytest
from conftest import draw_image, write_query

from Measure_OxfordParis import MeasureOptions
from utils.data.open_dataset import read_folder
from utils.scoring.protocol import protocol_line

REMOVED = "junk images are removed from the rankings"


def parts(folder, **options):
    data = read_folder(folder)
    return protocol_line(data, MeasureOptions(S=64, **options)).removeprefix("Protocol: ").split("; ")


def test_a_cropped_query_whose_image_is_unlabelled(dataset):
    assert parts(dataset) == [
        "S 64",
        "scales 1",
        "queries are cropped to their boxes after resizing",
        "the query's own image counts as wrong",
        REMOVED,
    ]


@pytest.mark.parametrize(
    ("label", "text"), [("good", "counts as a positive"), ("ok", "counts as a positive"), ("junk", "is junk")]
)
def test_the_label_of_the_own_image(dataset, label, text):
    write_query(dataset, "q_1", "a 0 0 40 40", **{label: "a b"})
    assert parts(dataset)[3] == f"the query's own image {text}"


def test_queries_of_several_kinds_are_counted(dataset):
    write_query(dataset, "q_2", "b 0 0 64 48", good="b")
    write_query(dataset, "q_3", "c 0.6 0 63.2 48.4", good="c")
    assert parts(dataset)[2:4] == [
        "1 of 3 queries are cropped to their boxes after resizing",
        "the query's own image counts as a positive for 2, counts as wrong for 1 queries",
    ]


def test_a_set_of_complete_images_without_junk(dataset):
    write_query(dataset, "q_1", "a 0 0 64 48", good="b")
    assert parts(dataset, scales=(0.7071, 1, 1.4142))[1:] == [
        "scales 0.7071, 1, 1.4142",
        "queries are complete images",
        "the query's own image counts as wrong",
        "there are no junk images",
    ]


def test_a_revisited_set(tmp_path):
    (tmp_path / "jpg").mkdir()
    for seed, name in enumerate("abcde"):
        draw_image(tmp_path / "jpg" / f"{name}.png", seed)
    gnd = [{"bbx": [0, 0, 40, 40], "easy": [0], "hard": [1], "junk": [2]}]
    labels = {"imlist": list("abcd"), "qimlist": ["e"], "gnd": gnd}
    (tmp_path / "gnd_roxford5k.json").write_text(json.dumps(labels))
    assert parts(tmp_path)[3:] == [
        "the query's own image is not in the database",
        f"{REMOVED}, for Easy also hard and for Hard also easy ones",
    ]


def test_queries_without_boxes_are_complete_images(dataset):
    data = read_folder(dataset)
    assert "; queries are complete images; " in protocol_line(data.without_boxes(), MeasureOptions(S=64))
    assert "complete" not in protocol_line(data, MeasureOptions(S=64))


def test_the_line_is_printed_last_and_is_in_the_results(measure, tmp_path):
    _, out, _ = measure("--output", tmp_path / "out", "--compare", "rmac,mac")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert out.splitlines()[-1] == results["protocol"]
    assert results["protocol"].startswith("Protocol: S 64; scales 1; queries are cropped")


def test_sizes_and_crops_of_another_system_are_unknown(measure, tmp_path):
    (tmp_path / "x.run").write_text("q_1 Q0 b 1 1 x\n")
    _, out, _ = measure("--score-run", tmp_path / "x.run", network=[])
    assert out.splitlines()[-1] == f"Protocol: the query's own image counts as wrong; {REMOVED}"
