import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from utils.errors import UserError
from utils.figures.heat_map import CAPTION
from utils.figures.result_page import Answer, Hit, thumbnail, write_page
from utils.text import escape_misleading

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</title></style><iframe src=//example.org>",
    "<!-- ",
    "&lt;b&gt; &amp;",
    "url(http://example.org/x.png)",
    "two\nlines\r\x00",
]


class Page(HTMLParser):
    """Elements with their attributes, texts and comments of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.comments = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        self.comments.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def written(tmp_path, query, hits, title="Found", note="a note"):
    has_heat = any(hit.heat is not None for hit in (query, *hits))
    write_page(tmp_path / "page.html", [Answer(query, hits)], title, note, has_heat)
    return Page((tmp_path / "page.html").read_bytes().decode("utf-8"))


def drawn(color, size=(40, 30)):
    return Image.new("RGB", size, color)


def structure(page):
    """Return the elements and the names of their attributes, which are the same for every name."""
    return [(tag, sorted(attributes)) for tag, attributes in page.elements]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_and_nothing_else(tmp_path, name):
    def of(text):
        hits = [Hit(1, text, 0.5, drawn("red"), drawn("blue")), Hit(2, text)]
        return written(tmp_path, Hit(None, text, None, drawn("green")), hits, text, text)

    page = of(name)
    assert structure(page) == structure(of("plain"))
    assert page.comments == []
    assert page.texts.count(escape_misleading(name)) == 6  # title and heading, the note, the query, two hits
    assert [image["alt"] for image in page.all("img")].count(escape_misleading(name)) == 2


def test_nothing_is_run_or_loaded(tmp_path):
    page = written(tmp_path, Hit(None, "q", None, drawn("green")), [Hit(1, "a", 1, drawn("red"))])
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a", "svg"}
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("href", "action") for name in attributes), tag
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]*", "", text))
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def decoded(image):
    data = image["src"].removeprefix("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_images_are_in_the_page_in_their_order_and_no_larger_than_needed(tmp_path):
    hits = [
        Hit(1, "a", 0.9, drawn("red", (900, 600)), drawn("yellow")),
        Hit(2, "b", 0.8, drawn("blue")),
    ]
    page = written(tmp_path, Hit(None, "q", None, drawn("lime", (30, 1000))), hits)
    images = [decoded(image) for image in page.all("img")]
    assert [image.format for image in images] == ["JPEG"] * 4
    assert [image.size for image in images] == [(10, 320), (320, 213), (40, 30), (40, 30)]
    colors = [image.getpixel((5, 5)) for image in images]
    for actual, color in zip(colors, [(0, 255, 0), (255, 0, 0), (255, 255, 0), (0, 0, 255)], strict=True):
        np.testing.assert_allclose(actual, color, atol=4)


def test_metadata_of_a_file_are_left_out(tmp_path):
    image = drawn("red")
    image.info["comment"] = b"where I live"
    page = written(tmp_path, Hit(None, "q", None, image), [])
    assert b"where I live" not in base64.b64decode(page.all("img")[0]["src"].split(",")[1])


def test_rank_score_and_name_of_every_result_are_shown(tmp_path):
    page = written(
        tmp_path, Hit(None, "the query"), [Hit(1, "a", 0.98765), Hit(2, "b", -0.5), Hit(3, "c", None)]
    )
    lines = [text.strip() for text in page.texts if text.strip()]
    after = lines[lines.index("Results") + 1 :]
    absent = "no image"
    assert after == [
        *(absent, "1", "similarity 0.9877", "a"),
        *(absent, "2", "similarity -0.5000", "b"),
        *(absent, "3", "c"),
    ]
    assert lines[lines.index("Query") + 1 : lines.index("Results")] == [absent, "the query"]
    assert not any(CAPTION in text for text in lines)


def test_the_scale_of_the_heat_maps_is_described(tmp_path):
    page = written(tmp_path, Hit(None, "q", None, drawn("red"), drawn("blue")), [Hit(1, "a", 1)])
    assert any(CAPTION in text for text in page.texts)
    assert [image["alt"] for image in page.all("img")] == ["q", "attention in q"]


def test_a_search_may_find_nothing(tmp_path):
    assert "Nothing was found." in written(tmp_path, Hit(None, "q"), []).texts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain & \u00e9\u6771.jpg", "plain & \u00e9\u6771.jpg"),
        (b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), r"caf\udce9.jpg"),
        ("a\nb\tc\x7f", r"a\nb\tc\x7f"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
    ],
)
def test_what_cannot_be_read_as_it_stands_is_escaped(tmp_path, name, expected):
    assert escape_misleading(name) == expected
    assert expected in written(tmp_path, Hit(None, "q"), [Hit(1, name)]).texts


def test_a_thumbnail_is_smaller_and_has_its_box():
    pixels = np.full((400, 800, 3), 90, np.uint8)
    image = thumbnail(pixels, (200, 100, 600, 10_000))
    assert image.size == (320, 160)
    changed = (np.asarray(image) != 90).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 159, 80, 240)
    assert image.getpixel((80, 100)) == (255, 212, 0)
    assert not changed[60:140, 100:220].any()
    assert (np.asarray(thumbnail(pixels)) == 90).all()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        write_page(tmp_path / "absent" / "page.html", [Answer(Hit(None, "q"), [])], "", "")


def test_invisible_marks_of_direction_are_shown():
    assert escape_misleading("a\u200eb\u200fc\u061cd") == "a\\u200eb\\u200fc\\u061cd"
