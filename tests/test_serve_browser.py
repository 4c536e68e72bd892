"""The page of an index in a real browser."""

import re

import pytest
from browser import PROGRAM, Browser
from conftest import draw_image
from test_serve_parts import started

import Search_Images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed"),
]
IDLE = "!document.body.hasAttribute('data-busy') && !document.querySelector('#matches[aria-busy], .waiting')"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(8):
        draw_image(folder / f"{seed}.png", seed, size=(320, 240))
    return Search_Images.index(folder, index=tmp_path_factory.mktemp("index"), S=64, device="cpu", workers=0)


@pytest.fixture(scope="module")
def address(index):
    process, address = started(index.location)
    yield address
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture
def browser(tmp_path, address):
    browser = Browser(tmp_path / "profile")
    browser.open(address)
    browser.wait("document.querySelectorAll('#images img').length === 8")
    yield browser
    browser.close()


def shown(browser):
    """Return the names and similarities of the results in the page, once they are complete."""
    browser.wait(f"document.querySelector('#matches li') && {IDLE}")
    cards = browser.run(
        "[...document.querySelectorAll('#matches li')].map("
        "(card) => [card.querySelector('.name').textContent, card.querySelector('.similarity').textContent])"
    )
    assert all(re.fullmatch(r"-?[01]\.\d{4}", similarity) for _, similarity in cards)
    return [[name, float(similarity)] for name, similarity in cards]


def expected(index, image, box=None):
    """Return matches of the command; the server has fewer threads, which changes the last bits."""
    matches = Search_Images.search(image, box=box, index=index)
    return [[match.path.name, pytest.approx(match.similarity, abs=5.1e-5)] for match in matches]


def box_of(browser):
    values = browser.run("['left', 'top', 'right', 'bottom'].map((id) => document.getElementById(id).value)")
    return tuple(map(int, values)) if all(values) else None


def area(browser):
    """Return the position of the preview in the window: left, top, width, height."""
    return browser.run(
        "(() => { const area = document.getElementById('preview').getBoundingClientRect();"
        "return [area.left, area.top, area.width, area.height]; })()"
    )


def loaded(browser, selector):
    images = f"[...document.querySelectorAll('{selector}')]"
    return browser.run(f"{images}.every((image) => image.complete && image.naturalWidth > 0)")


def test_a_sent_photo_is_searched_for_and_a_drawn_box_too(browser, index, tmp_path):
    draw_image(tmp_path / "outside.png", 99, size=(320, 240))
    browser.choose_file("#file", tmp_path / "outside.png")
    assert shown(browser) == expected(index, tmp_path / "outside.png")
    assert loaded(browser, "#matches img")
    assert browser.run("document.querySelectorAll('#matches .heat').length") == 8
    left, top, width, height = area(browser)
    browser.drag((left + 0.25 * width, top + 0.2 * height), (left + 0.75 * width, top + 0.7 * height))
    browser.wait(IDLE)
    box = box_of(browser)
    assert box == pytest.approx((80, 48, 240, 168), abs=2)
    assert shown(browser) == expected(index, tmp_path / "outside.png", box)
    assert loaded(browser, "#query-heat img")
    browser.run("document.getElementById('clear').click()")
    assert shown(browser) == expected(index, tmp_path / "outside.png")
    assert browser.problems == []


def test_a_dropped_photo_is_searched_for(browser, index, tmp_path):
    draw_image(tmp_path / "dropped.png", 98, size=(320, 240))
    browser.drop(tmp_path / "dropped.png", (700, 400))
    assert shown(browser) == expected(index, tmp_path / "dropped.png")
    assert browser.run("document.getElementById('name').textContent").startswith("dropped.png")
    assert browser.run("location.pathname") == "/"


def test_a_box_is_moved_resized_and_removed_with_the_mouse(browser, index):
    browser.run("document.querySelectorAll('#images button')[4].click()")
    shown(browser)
    left, top, width, height = area(browser)

    def point(x, y):
        return left + x * width / 320, top + y * height / 240

    browser.drag(point(100, 60), point(200, 160))
    assert box_of(browser) == pytest.approx((100, 60, 200, 160), abs=2)
    browser.drag(point(150, 110), point(130, 130))  # inside
    assert box_of(browser) == pytest.approx((80, 80, 180, 180), abs=3)
    browser.drag(point(150, 130), point(500, 130))  # it stops at the edge
    assert box_of(browser) == pytest.approx((220, 80, 320, 180), abs=3)
    x1, y1, *_ = box_of(browser)
    browser.drag(point(x1, y1), point(100, 20))  # a corner
    assert box_of(browser) == pytest.approx((100, 20, 320, 180), abs=3)
    box = box_of(browser)
    assert shown(browser) == expected(index, index.path(4), box)
    browser.drag(point(20, 200), point(20, 200))  # a click outside
    assert box_of(browser) is None


def test_the_keyboard_is_enough(browser, index):
    browser.run("document.querySelector('#images button').focus()")
    browser.press("Enter")
    assert shown(browser) == expected(index, index.path(0))
    assert browser.run("document.activeElement.id") == "results-title"
    browser.run("document.getElementById('stage').focus()")
    browser.press("Enter")
    assert box_of(browser) == (80, 60, 240, 180)
    browser.press("ArrowRight")  # by 2 % of the longer side, 6 pixels
    browser.press("ArrowUp")
    browser.press("ArrowDown", shift=True)
    browser.press("ArrowLeft", shift=True)
    assert box_of(browser) == (86, 54, 240, 180)
    browser.wait("document.getElementById('status').textContent.includes('in the box')")
    assert shown(browser) == expected(index, index.path(0), (86, 54, 240, 180))
    browser.press("Escape")
    assert box_of(browser) is None
    browser.wait("document.getElementById('status').textContent.includes('to the photo')")
    assert shown(browser) == expected(index, index.path(0))
    focused = set()
    for _ in range(20):
        browser.press("Tab")
        names = (
            "[document.activeElement.id, document.activeElement.className, document.activeElement.localName]"
        )
        focused.add(browser.run(f"{names}.find(Boolean)"))
    assert {"summary", "show-heat", "to-index", "card"} <= focused
    assert browser.problems == []


def test_sides_of_the_box_can_be_typed(browser, index):
    browser.run("document.querySelectorAll('#images button')[1].click()")
    shown(browser)
    browser.run("document.querySelector('summary').click()")
    for name, value in (("left", 30), ("bottom", 200)):
        browser.run(f"document.getElementById('{name}').value = {value}")
        browser.run(f"document.getElementById('{name}').dispatchEvent(new Event('change'))")
    assert box_of(browser) == (30, 0, 320, 200)
    browser.wait("document.getElementById('status').textContent.includes('in the box')")
    assert shown(browser) == expected(index, index.path(1), (30, 0, 320, 200))
    browser.run("document.getElementById('right').value = 9999")
    browser.run("document.getElementById('right').dispatchEvent(new Event('change'))")
    assert box_of(browser) == (30, 0, 320, 200)


def test_results_lead_to_more_results_and_back(browser, index):
    browser.run("document.querySelectorAll('#images button')[3].click()")
    first = shown(browser)
    browser.run("document.querySelectorAll('#matches button')[2].click()")
    browser.wait(f"!document.getElementById('name').textContent.startsWith('3.png') && {IDLE}")
    assert shown(browser) == expected(index, index.folder / first[2][0])
    browser.run("history.back()")
    browser.wait(f"document.getElementById('name').textContent.startsWith('3.png') && {IDLE}")
    assert shown(browser) == first


def test_a_photo_that_cannot_be_decoded_is_an_error_in_the_page(browser, tmp_path):
    (tmp_path / "script.jpg").write_text("#!/bin/sh\n")
    browser.choose_file("#file", tmp_path / "script.jpg")
    browser.wait("!document.getElementById('error').hidden")
    text = browser.run("document.getElementById('error').textContent")
    assert text == "This photo cannot be decoded: its format is unknown, or it is not an image."
    assert browser.run("document.getElementById('chosen').hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_only_down_and_reads_dark_on_light_or_light_on_dark(browser, address, scheme):
    browser.resize(360, 700, scheme)
    browser.open(f"{address}#images/2")
    shown(browser)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    lightness = browser.run(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        ".map((colour) => colour.match(/\\d+/g).reduce((sum, value) => sum + Number(value), 0) / 3)"
    )
    assert (lightness[0] > 200 and lightness[1] < 60) == (scheme == "light")
    assert (lightness[0] < 60 and lightness[1] > 200) == (scheme == "dark")


def test_a_box_is_drawn_with_a_finger(browser, address, index):
    browser.resize(360, 700)
    browser.open(f"{address}#images/2")
    browser.wait("document.getElementById('chosen').hidden === false")
    shown(browser)
    left, top, width, height = area(browser)
    browser.swipe((left + 0.2 * width, top + 0.3 * height), (left + 0.8 * width, top + 0.9 * height))
    box = box_of(browser)
    assert box == pytest.approx((64, 72, 256, 216), abs=2)
    browser.wait("document.getElementById('status').textContent.includes('in the box')")
    assert shown(browser) == expected(index, index.path(2), box)
