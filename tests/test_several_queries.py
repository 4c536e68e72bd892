"""Several queries in one call, the least similarity, and images that are left out."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from conftest import draw_image, draw_images
from helpers import FAST_INDEX, FAST_OPTIONS
from PIL import Image

import Search_Images
from utils.descriptors import prepared_network
from utils.descriptors.rows import StoredRows
from utils.errors import UserError
from utils.image_index import image_index
from utils.image_index.image_index import ImageIndex, read_index
from utils.photo_search.excluding import excluder

NAMES = ["a.png", "b.png", "c.jpg", "more/d.png", "more/still/e.png", "more/still/f.jpg"]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    draw_images(folder, NAMES)
    return folder


@pytest.fixture
def queries(tmp_path):
    """A folder of three images that are not indexed, and a file that is no image."""
    folder = tmp_path / "queries"
    draw_images(folder, ["x.png", "y.png", "below/z.png"], first_seed=40)
    (folder / "notes.txt").write_text("no image")
    return folder


def ranked(folder, query, names=NAMES, least=-1.0):
    """Return (rank, similarity, path) of images for a query by a product of their descriptors."""
    paths = [folder / name for name in names]
    vectors = Search_Images.describe([*paths, query], **FAST_OPTIONS).astype(np.float64)
    similar = vectors[:-1] @ vectors[-1]
    order = [index for index in np.argsort(-similar) if similar[index] >= least]
    return [(rank, similar[index], str(paths[index])) for rank, index in enumerate(order, 1)]


def read_lines(out):
    """Return the matches of printed lines by query: rank, similarity and path."""
    rows: dict[str, list] = {}
    for line in out.splitlines():
        rank, similarity, path, query = line.split("\t")
        rows.setdefault(query, []).append((int(rank), float(similarity), path))
    return rows


def assert_same(matches, expected):
    assert [match[::2] for match in matches] == [match[::2] for match in expected]
    similarities = [match[1] for match in expected]
    assert [match[1] for match in matches] == pytest.approx(similarities, abs=1e-4)


def test_images_and_folders_are_searched_for_one_after_the_other(command, indexed, queries):
    status, out, err = command("query", indexed / "b.png", queries, "--json", "all.json")
    assert status == 0, err
    rows = read_lines(out)
    order = [indexed / "b.png", queries / "below" / "z.png", queries / "x.png", queries / "y.png"]
    assert list(rows) == list(map(str, order))
    for query in order:
        assert_same(rows[str(query)], ranked(indexed, query))
    written = json.loads(Path("all.json").read_text())["queries"]
    assert [one["query"] for one in written] == list(rows)
    assert [[match["path"] for match in one["matches"]] for one in written] == [
        [match[2] for match in matches] for matches in rows.values()
    ]
    assert {one["box"] for one in written} == {None}
    for name in ("all.json", "one.json"):  # of one image, also in a file that had several
        assert command("query", indexed / "b.png", "--json", name)[0] == 0
        assert json.loads(Path(name).read_text()) == written[0]
    assert command("query", indexed, "--json", "one.json")[0] == 0


def test_a_query_has_the_same_lines_alone_and_among_others(command, indexed, queries):
    together = command("query", queries / "x.png", queries / "y.png", indexed / "a.png")[1].splitlines()
    alone = []
    for query in (queries / "x.png", queries / "y.png", indexed / "a.png"):
        alone += [f"{line}\t{query}" for line in command("query", query)[1].splitlines()]
    assert together == alone


def test_a_folder_of_one_image_has_the_lines_of_a_folder(command, indexed, queries):
    out = command("query", queries / "below", "--top", "1")[1]
    assert out.endswith(f"\t{queries / 'below' / 'z.png'}\n")


def test_the_network_and_the_index_are_read_once(command, indexed, queries, monkeypatch):
    calls = []

    def noted(function):
        def call(*arguments):
            calls.append(function.__name__)
            return function(*arguments)

        return call

    monkeypatch.setattr(prepared_network, "load_network", noted(prepared_network.load_network))
    monkeypatch.setattr(Search_Images, "read_index", noted(read_index))
    prepared_network.loaded_network.cache_clear()
    assert command("query", queries, indexed, "--html", "page.html")[0] == 0
    assert sorted(calls) == ["load_network", "read_index"]


def test_an_unreadable_query_is_left_out_unless_there_is_no_other(command, indexed, queries, caplog):
    caplog.set_level("INFO")
    (queries / "broken.jpg").write_bytes(b"no image")
    status, out, _ = command("query", queries, "absent.png", "--top", "1")
    assert status == 0
    assert [Path(query).name for query in read_lines(out)] == ["z.png", "x.png", "y.png"]
    assert f"left out {queries / 'broken.jpg'} cannot be decoded" in caplog.text
    assert "left out absent.png cannot be decoded: No such file" in caplog.text
    status, out, _ = command("query", "absent.png", indexed / "a.png", "--top", "1")
    assert (status, list(read_lines(out))) == (0, [str(indexed / "a.png")])
    status, out, err = command("query", queries / "broken.jpg", "absent.png")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: none of the 2 queries can be decoded: ")
    assert "described 0" not in caplog.text
    status, out, err = command("query", "absent.png")
    assert (status, out, err) == (2, "", "error: absent.png cannot be decoded: No such file or directory\n")


def test_python_callers_search_for_several_images(indexed, queries, monkeypatch):
    monkeypatch.chdir(indexed.parent)
    paths = [str(queries / "x.png"), indexed / "a.png"]
    results = Search_Images.search_each(paths, top=2, device="cpu")
    assert [query.path for query, _ in results] == list(map(Path, paths))
    for query, matches in results:
        assert matches == Search_Images.search(query.path, top=2, device="cpu")
        assert_same([(*match[:2], str(match.path)) for match in matches], ranked(indexed, query.path)[:2])
    with pytest.raises(UserError, match="images is empty"):
        Search_Images.search_each([""])
    with pytest.raises(UserError, match="images is empty"):
        Search_Images.search_each([])
    (alone,) = Search_Images.search_each(paths[0], top=2, device="cpu")
    assert alone == results[0]


def test_matches_are_as_similar_as_asked(command, indexed, queries):
    expected = ranked(indexed, queries / "x.png")
    least = (expected[2][1] + expected[3][1]) / 2
    out = command("query", queries / "x.png", indexed, "--min-similarity", f"{least:.6f}")[1]
    rows = read_lines(out)
    assert_same(rows[str(queries / "x.png")], expected[:3])
    for query in NAMES:
        assert_same(rows[str(indexed / query)], ranked(indexed, indexed / query, least=least))
    assert command("query", queries / "x.png", "--min-similarity", "1")[:2] == (0, "")
    for name in NAMES:  # an image has similarity 1 to itself, also if rounding makes it a little less
        out = command("query", indexed / name, "--min-similarity", "1")[1]
        assert out == f"1\t1.0000\t{indexed / name}\n"
    assert "from -1 to 1" in command("query", "x.png", "--min-similarity", "1.1")[2]


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["*.png"], ["c.jpg", "more/still/f.jpg"]),
        (["still"], ["a.png", "b.png", "c.jpg", "more/d.png"]),
        (["more/"], ["a.png", "b.png", "c.jpg"]),
        (["/still"], NAMES),
        (["./more/still/"], ["a.png", "b.png", "c.jpg", "more/d.png"]),
        (["./still"], NAMES),
        (["more/still"], ["a.png", "b.png", "c.jpg", "more/d.png"]),
        (["more/*.png"], ["a.png", "b.png", "c.jpg", "more/still/f.jpg"]),
        (["/?.png", "[ef].*"], ["c.jpg", "more/d.png"]),
        (["A.png", "a", ".png", "ore"], NAMES),
        ([], NAMES),
    ],
)
def test_patterns_leave_out_names_and_folders(patterns, kept):
    is_excluded = excluder(patterns)
    assert [name for name in NAMES if not is_excluded(name)] == kept


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_patterns_know_both_forms_of_letters_with_accents(form):
    is_excluded = excluder([normalize(form, "Entwürfe"), normalize(form, "/b/x?ä.jpg")])
    names = [normalize(other, name) for name in ("Entwürfe/a.jpg", "b/xyä.jpg") for other in ("NFC", "NFD")]
    assert list(map(is_excluded, [*names, "Entwurfe/a.jpg"])) == [True] * 4 + [False]


def test_a_query_leaves_out_images_and_finds_as_many_others(command, indexed, queries):
    out = command("query", queries / "x.png", "--exclude", "c.jpg", "--exclude", "still", "--top", "2")[1]
    rows = [line.split("\t") for line in out.splitlines()]
    expected = ranked(indexed, queries / "x.png", ["a.png", "b.png", "more/d.png"])[:2]
    assert_same([(int(rank), float(similarity), path) for rank, similarity, path in rows], expected)
    # the query itself is left out of the matches, too
    out = command("query", indexed / "a.png", "--exclude", "a.png")[1]
    rows = [line.split("\t") for line in out.splitlines()]
    assert_same(
        [(int(rank), float(similarity), path) for rank, similarity, path in rows],
        ranked(indexed, indexed / "a.png", NAMES[1:]),
    )
    assert command("query", indexed / "a.png", "--exclude", "*")[:2] == (0, "")


def test_patterns_without_an_image_are_named_in_a_note(command, images, indexed, queries, caplog):
    absolute = "/elsewhere/more"
    patterns = ["--exclude", "a.png", "--exclude", absolute, "--exclude", "A.PNG"]
    note = f"note: no image is left out by exclude {absolute!r}, 'A.PNG': give names, or paths within"
    assert command("query", queries / "x.png", *patterns)[0] == 0
    assert command("duplicates", *patterns)[0] == 0
    assert command("index", images, *FAST_INDEX, *patterns)[0] == 0
    assert [record.message.startswith(note) for record in caplog.records].count(True) == 3


def test_an_index_leaves_out_images_and_removes_them(command, images, caplog):
    caplog.set_level("INFO")
    assert command("index", images, *FAST_INDEX, "--exclude", "more/still", "--exclude", "b.*")[0] == 0
    assert list(read_index(Path("search_index")).names) == ["a.png", "c.jpg", "more/d.png"]
    assert "left out 3 images by exclude (b.png, more/still/e.png, more/still/f.jpg)" in caplog.text
    assert command("index", images, *FAST_INDEX)[1].startswith("6 images")
    out = command("index", images, *FAST_INDEX, "--exclude", "*.png")[1]
    assert out == f"2 images of {images} are in search_index: 0 new or changed, 4 removed\n"
    status, out, err = command("index", images, *FAST_INDEX, "--exclude", "*")
    assert (status, out) == (2, "")
    assert err == f"error: exclude leaves out all 6 images in {images}\n"
    assert len(read_index(Path("search_index")).names) == 2


def test_an_approximate_index_is_searched_exactly_without_images(command, images, queries):
    pytest.importorskip("faiss")
    for seed in range(200, 240):
        draw_image(images / f"{seed}.png", seed)
    assert command("index", images, *FAST_INDEX, "--approximate")[0] == 0
    out = command("query", queries / "x.png", "--exclude", "2*.png")[1]
    rows = [line.split("\t") for line in out.splitlines()]
    assert_same([(int(row[0]), float(row[1]), row[2]) for row in rows], ranked(images, queries / "x.png"))


def test_milvus_leaves_out_the_same_images(command, images, queries):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    database = ["--milvus", "photos.db"]
    assert command("index", images, *FAST_INDEX, *database)[0] == 0
    assert command("index", images, *FAST_INDEX)[0] == 0
    words = ["query", queries, images / "a.png", "--exclude", "b.png", "--exclude", "still"]
    local, remote = command(*words), command(*words, *database)
    assert local[0] == 0
    assert len(local[1].splitlines()) == 12
    assert remote[:2] == local[:2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "b.png", "--box", "0", "0", "9", "9"], "box is of one image"),
        ([".", "--box", "0", "0", "9", "9"], "box is of one image"),
        (["empty"], "no images in empty"),
        (["a.png", "--exclude", "/"], "exclude has an empty pattern"),
    ],
)
def test_options_that_do_not_suit_are_one_line(command, indexed, words, message):
    Path("empty").mkdir()
    status, out, err = command("query", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_the_page_has_each_query_with_its_matches(command, indexed, queries):
    status, _, err = command(
        "query", queries / "x.png", indexed / "a.png", "--html", "page.html", "--top", "3"
    )
    assert status == 0, err
    texts, tags = [], []
    parser = HTMLParser()
    parser.handle_data = texts.append
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(Path("page.html").read_text(encoding="utf-8"))
    assert "Images like 2 queries" in texts
    assert (tags.count("section"), tags.count("img"), tags.count("li")) == (2, 8, 6)
    names = [text for text in texts if text.endswith(("g",)) and text.strip() == text]
    expected = []
    for query in (queries / "x.png", indexed / "a.png"):
        expected.append(str(query))
        expected += [
            str(Path(path).relative_to(indexed)) for _, _, path in ranked(indexed, query, least=-1)[:3]
        ]
    assert names == expected


def test_many_queries_are_searched_in_blocks(monkeypatch):
    monkeypatch.setattr(image_index, "QUERIES", 2)
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"{number}.png" for number in range(9)]
    stored = StoredRows([rows[:4], rows[4:]], np.arange(9))
    index = ImageIndex(Path("images"), names, names, stored, {}, "rows")
    results = index.nearest_each(rows[:5], 3, [0, None, 2, None, None])
    order = np.argsort(-(rows[:5] @ rows.T), axis=1)[:, :3]
    assert [[row for row, _ in pairs] for pairs in results] == order.tolist()


def test_selected_rows_are_the_rows_at_the_indices():
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    stored = StoredRows([rows[:5], rows[5:]], np.arange(8)[::-1].copy())
    selected = stored.selected(np.array([6, 0, 3]))
    np.testing.assert_array_equal(selected[:], rows[[1, 7, 4]])
    blocks = {
        index: row.tolist()
        for indices, part in selected.blocks()
        for index, row in zip(indices, part, strict=True)
    }
    assert blocks == {0: rows[1].tolist(), 1: rows[7].tolist(), 2: rows[4].tolist()}


def test_a_copy_in_the_folder_of_queries_is_a_query(command, indexed, queries):
    shutil.copy(indexed / "b.png", queries / "copy.png")
    Image.open(indexed / "a.png").save(queries / "a.webp", lossless=True)
    rows = read_lines(command("query", queries, "--top", "1")[1])
    assert rows[str(queries / "copy.png")][0][2] == str(indexed / "b.png")
    assert rows[str(queries / "a.webp")][0][2] == str(indexed / "a.png")
