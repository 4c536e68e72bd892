import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_image
from PIL import Image

from utils.errors import UserError
from utils.figures import drawing as figures
from utils.figures.drawing import (
    Result,
    Strip,
    draw_attention,
    draw_precision_recall,
    draw_strip,
    draw_strips,
    precision_recall,
)
from utils.scoring.compute_ap import average_precision

WHITE = np.full((90, 120, 3), 255, np.uint8)
BLUE, GREEN, GREY, RED = (0x21, 0x58, 0xC4), (0x2E, 0x99, 0x40), (0x80, 0x80, 0x80), (0xC6, 0x2F, 0x26)


def drawn(path):
    return np.asarray(Image.open(path).convert("RGB"), int)


def near(pixels, color):
    """Return a mask of the pixels that have a colour, up to rounding."""
    return (abs(pixels - np.array(color)) <= 2).all(2)


def extent(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.fixture(scope="module")
def strip(tmp_path_factory):
    """A drawn strip of a query, a positive, a negative and junk, all white images."""
    path = tmp_path_factory.mktemp("strip") / "strip.png"
    results = [Result(WHITE, kind, 0.5) for kind in ("positive", "wrong", "junk")]
    draw_strip(path, WHITE, (30, 30, 90, 60), results)
    return drawn(path)


def test_frames_have_the_colours_of_their_kinds_in_the_order_of_the_ranking(strip):
    spans = [extent(near(strip, color))[2:] for color in (BLUE, GREEN, RED)]
    # dark text has grey edges: only greys to the right of the other frames count
    right = spans[-1][1] + 2
    spans.append(extent(near(strip[:, right:], GREY))[2:])
    spans[-1] = (spans[-1][0] + right, spans[-1][1] + right)
    for (_, before), (after, _) in pairwise(spans):
        assert before < after
    assert all(end - start > 150 for start, end in spans)


def test_frames_differ_in_grey_print_too(strip):
    def thickness(color):
        mask = near(strip, color)
        top, bottom, left, right = extent(mask)
        return mask[(top + bottom) // 2, left : (left + right) // 2].sum()

    assert thickness(RED) >= 2 * thickness(GREEN) >= 4
    # the green frame is solid, that of junk is dashed
    green = near(strip, GREEN)
    top, bottom, left, right = extent(green)
    assert green[(top + 1), left:right].all()
    assert green[top:bottom, left + 1].all()
    width = strip.shape[1]
    edge = strip[: strip.shape[0] // 2, width - width // 8 :].min(2) < 192
    changes = np.abs(np.diff(edge[edge.sum(1).argmax()].astype(int))).sum()
    assert changes > 10


def test_the_box_is_drawn_at_its_position_in_the_query(tmp_path, strip):
    results = [Result(WHITE, kind, 0.5) for kind in ("positive", "wrong", "junk")]
    draw_strip(tmp_path / "no_box.png", WHITE, None, results)
    without = drawn(tmp_path / "no_box.png")
    top, bottom, left, right = extent(near(without, BLUE))
    height, width = bottom - top, right - left
    actual = extent((strip != without).any(2))
    expected = (top + height / 3, top + height * 2 / 3, left + width / 4, left + width * 3 / 4)
    np.testing.assert_allclose(actual, expected, atol=5)


def texts(monkeypatch, draw):
    """Return the texts of each axes of a figure, and the figure, which is not saved."""
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, path: saved.append(figure))
    draw()
    return [[text.get_text() for text in axes.texts] for axes in saved[0].axes], saved[0]


def test_rank_mark_and_score_stand_below_the_first_ten(monkeypatch, tmp_path):
    kinds = ["positive", "junk", "wrong"] * 4
    results = [Result(WHITE, kind, 1 - index / 8) for index, kind in enumerate(kinds)]
    actual, _ = texts(monkeypatch, lambda: draw_strip(tmp_path / "a.png", WHITE, None, results))
    assert len(actual) == 11
    assert actual[:4] == [["query"], ["1 + 1.000"], ["2 junk 0.875"], ["3 × 0.750"]]
    assert actual[10] == ["10 + -0.125"]


def test_queries_may_have_fewer_results_than_others(monkeypatch, tmp_path):
    strips = [
        Strip(WHITE, None, [Result(WHITE, "wrong"), Result(WHITE, "junk")]),
        Strip(WHITE, None, [Result(WHITE, "positive")]),
    ]
    actual, _ = texts(monkeypatch, lambda: draw_strips(tmp_path / "a.png", strips))
    assert actual == [["query"], ["1 ×"], ["2 junk"], ["query"], ["1 +"], []]


def test_precision_and_recall_by_hand():
    # + - - + and one positive that is not retrieved
    recall, precision = precision_recall(np.array([0, 3]), 3)
    np.testing.assert_allclose(recall, [0, 0, 1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(precision, [1, 1, 1, 1 / 3, 2 / 4])


@pytest.mark.parametrize("seed", range(5))
def test_the_area_below_the_curve_is_the_average_precision(seed):
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.choice(200, 20, replace=False))
    recall, precision = precision_recall(indices, 25)
    area = np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2)
    assert area == pytest.approx(average_precision(indices, 25), rel=1e-5)


def test_no_retrieved_positives_are_a_point_and_no_positives_an_error():
    assert [values.tolist() for values in precision_recall(np.array([], int), 2)] == [[0], [1]]
    with pytest.raises(ValueError, match="positives"):
        precision_recall(np.array([], int), 0)


def test_curves_differ_in_colour_and_line_style_and_are_named(monkeypatch, tmp_path):
    curves = {f"method {index}": precision_recall(np.array([index, 9]), 2) for index in range(4)}
    _, figure = texts(monkeypatch, lambda: draw_precision_recall(tmp_path / "a.png", curves))
    lines = figure.axes[0].lines
    assert len({line.get_color() for line in lines}) == 4
    assert len({line.get_linestyle() for line in lines}) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)
    for line, (recall, precision) in zip(lines, curves.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([recall, precision]))


def test_a_name_with_dollars_is_no_formula(tmp_path):
    draw_precision_recall(tmp_path / "a.png", {r"$\nonsense{$": precision_recall(np.array([0]), 1)})
    assert near(drawn(tmp_path / "a.png"), (0, 0, 0)).any()


def test_attention_stands_beside_its_image_on_the_scale_of_its_weights(monkeypatch, tmp_path):
    heat = np.array([[0.5, 0.6], [0.7, 0.9]])
    _, figure = texts(monkeypatch, lambda: draw_attention(tmp_path / "a.png", WHITE, heat))
    image, heat_map, bar = figure.axes
    assert image.images[0].get_array().tolist() == WHITE.tolist()
    # matplotlib's darkest and lightest colours of inferno, with opacity 0.7 over a white image
    shown = np.asarray(heat_map.images[0].get_array(), float)
    np.testing.assert_allclose(
        shown[0, 0], 255 * (0.7 * np.array([0.001462, 0.000466, 0.013866]) + 0.3), atol=1
    )
    np.testing.assert_allclose(
        shown[-1, -1], 255 * (0.7 * np.array([0.988362, 0.998364, 0.644924]) + 0.3), atol=1
    )
    assert bar.get_ylim() == pytest.approx((0.5, 0.9))
    assert "weight" in bar.get_ylabel()


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".PDF", b"%PDF"), (".jpg", b"\xff\xd8")]
)
def test_a_figure_is_of_its_suffixs_type_and_has_the_same_bytes_each_time(tmp_path, suffix, start):
    heat = np.eye(3)
    for name in "ab":
        draw_attention(tmp_path / (name + suffix), WHITE, heat)
    first, second = ((tmp_path / (name + suffix)).read_bytes() for name in "ab")
    assert first.startswith(start)
    assert first == second
    assert not re.search(rb"CreationDate|tIME|Software", first)


def test_another_suffix_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"\.png, \.pdf"):
        draw_precision_recall(tmp_path / "a.docx", {})
    assert list(tmp_path.iterdir()) == []


WITHOUT_FIGURES = """
import sys
from contextlib import suppress
import LearningPCA_landmark, Measure_OxfordParis, Prepare_Datasets, Search_Images, Training_ImageNet
with suppress(SystemExit):
    Search_Images.command_line(["index", "--help"])
options = "--S 64 --pooling rmac --no-whiten --device cpu --workers 0".split()
Search_Images.command_line(["index", sys.argv[1], "--index", sys.argv[2], *options])
print("matplotlib" in sys.modules)
"""


def test_matplotlib_is_not_imported_before_something_is_drawn(tmp_path):
    (tmp_path / "images").mkdir()
    draw_image(tmp_path / "images" / "a.png")
    words = [sys.executable, "-c", WITHOUT_FIGURES, tmp_path / "images", tmp_path / "index"]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert "--store-precision" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
