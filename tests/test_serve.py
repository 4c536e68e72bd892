"""The page of an index, by requests as a browser and hostile programs send them."""

import io
import re
import struct
import sys
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import draw_image, draw_images
from PIL import Image

pytest.importorskip("starlette")
from starlette.testclient import TestClient

import Search_Images
from utils.figures.heat_map import image_attention
from utils.image_index import approximate_update
from utils.images import reduced
from utils.images.loading import InputImage, read_image
from utils.serve import application as page_application
from utils.serve.jobs import Jobs
from utils.serve.searcher import PhotoSearcher, Query
from utils.serve.server import guarded_application, page_assets

OWN = "http://127.0.0.1:8080"
SETTINGS = {"S": 64, "device": "cpu", "workers": 0}
NAMES = ["a.png", "b.png", "c.png", "d.jpg", "more/e.png", "more/still/f.png"]


def make_searcher(index, top=20):
    return Search_Images.open_searcher(
        Search_Images.ServeOptions(index=index.location, device="cpu", top=top)
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw_images(folder, NAMES)
    with Image.open(folder / "d.jpg") as image:
        exif = image.getexif()
        exif[0x0112] = 6  # to be turned clockwise by a quarter
        exif[0x010E] = "a secret"
        image.save(folder / "d.jpg", exif=exif)
    return Search_Images.index(folder, index=tmp_path_factory.mktemp("index"), **SETTINGS)


@pytest.fixture(scope="module")
def searcher(index):
    return make_searcher(index)


@pytest.fixture(scope="module")
def client(searcher):
    jobs = Jobs()
    yield TestClient(guarded_application(searcher, jobs, "a note", "127.0.0.1"), OWN, headers={"Origin": OWN})
    jobs.close()


@pytest.fixture
def serve():
    """A function that returns a client of the page of an index; the page's threads end after the test."""
    started = []

    def start(searcher, origin=None):
        started.append(Jobs())
        application = guarded_application(searcher, started[-1], "", "127.0.0.1")
        return TestClient(application, OWN, headers=origin and {"Origin": origin})

    yield start
    for jobs in started:
        jobs.close()


@pytest.fixture
def photo(tmp_path):
    """A turned photo outside the index."""
    draw_image(tmp_path / "outside.jpg", 9, size=(96, 64))
    with Image.open(tmp_path / "outside.jpg") as image:
        exif = image.getexif()
        exif[0x0112] = 8
        image.save(tmp_path / "outside.jpg", exif=exif)
    return tmp_path / "outside.jpg"


def send(client, data):
    return client.post("/uploads", content=data, headers={"Content-Type": "application/octet-stream"})


def search(client, image, box=None):
    return client.post("/search", json={"image": image, "box": box})


def found(answer):
    assert answer.status_code == 200, answer.text
    return [(match["rank"], match["name"], match["similarity"]) for match in answer.json()["matches"]]


def expected(matches, index):
    """Return matches of the command; the server has fewer threads, which changes the last bits."""
    return [
        (rank, str(path.relative_to(index.folder)), pytest.approx(similarity, abs=1e-6))
        for rank, similarity, path in matches
    ]


@pytest.mark.parametrize("box", [None, [8, 4, 40, 44], [-5, 20.5, 30, 1000]])
@pytest.mark.parametrize("row", [0, 3, 5])
def test_images_of_the_index_have_the_results_of_the_command(client, index, row, box):
    result = found(search(client, f"images/{row}", box))
    assert len(result) == 6
    assert result == expected(
        Search_Images.search(index.path(row), box=box and tuple(box), index=index), index
    )


@pytest.mark.parametrize("box", [None, [8, 4, 40, 80]])
def test_photos_that_are_sent_have_the_results_of_the_command(client, index, photo, box):
    sent = send(client, photo.read_bytes()).json()
    assert (sent["width"], sent["height"]) == (64, 96)
    result = found(search(client, sent["image"], box))
    assert result == expected(Search_Images.search(photo, box=box and tuple(box), index=index), index)


def test_only_the_first_matches_are_sent(index):
    searcher = make_searcher(index, top=2)
    found = searcher.search(Query("images/1", InputImage(index.path(1)), 1)).found
    assert len(found) == 2
    assert found[0].row == 1


@pytest.mark.parametrize("box", [None, (8, 4, 40, 44)])
def test_attention_is_the_networks(searcher, index, box):
    image = InputImage(index.path(2), box)
    network = searcher._network
    expected_heat = image_attention(network, image, 64)
    assert np.ptp(expected_heat) > 0
    indexed = searcher.attention(Query("images/2", image, 2))  # of a complete image, in float16 in the index
    np.testing.assert_allclose(indexed, expected_heat, atol=1e-6 if box else 1e-3)
    fresh = PhotoSearcher(index, network, 64, 20)
    fresh.search(Query("images/x", image, 2 if box is None else None))
    np.testing.assert_allclose(fresh.attention(Query("images/x", image)), expected_heat, atol=1e-6)


def test_jpegs_are_small_upright_and_without_metadata(client, index):
    for kind in ("thumbnail", "preview", "attention"):
        answer = client.get(f"/images/3/{kind}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert b"secret" not in answer.content
        image = Image.open(io.BytesIO(answer.content))
        assert image.size == (48, 64)
        if kind != "attention":
            difference = np.array(image).astype(int) - read_image(index.path(3))
            assert np.abs(difference).mean() < 12
    assert client.get("/images/3").json() == {"image": "images/3", "name": "d.jpg", "width": 48, "height": 64}


def test_the_heat_map_of_a_box_has_its_shape(client):
    answer = client.get("/images/0/attention?box=8,4,40,20")
    assert Image.open(io.BytesIO(answer.content)).size == (32, 16)
    assert client.get("/images/0/attention?box=8,4,40,20").content == answer.content


def test_a_large_photo_is_reduced(client):
    data = io.BytesIO()
    pixels = np.zeros((1500, 2000, 3), np.uint8)
    pixels[:, 1000:] = 200
    Image.fromarray(pixels).save(data, "JPEG")
    image = send(client, data.getvalue()).json()["image"]
    for kind, width in (("thumbnail", 400), ("preview", 1200)):
        shown = Image.open(io.BytesIO(client.get(f"/{image}/{kind}").content))
        assert shown.size == (width, 3 * width // 4)
        assert [shown.getpixel((x * width // 8, 100))[0] // 10 for x in (1, 7)] == [0, 20]


def test_images_are_listed_by_row_and_name(client, monkeypatch):
    monkeypatch.setattr(page_application, "LISTED", 2)
    answer = client.get("/images").json()
    assert answer == {"total": 6, "images": [{"row": 0, "name": "a.png"}, {"row": 1, "name": "b.png"}]}
    assert [image["row"] for image in client.get("/images?start=4").json()["images"]] == [4, 5]
    answer = client.get("/images?name=MORE%2Fs").json()
    assert answer == {"total": 1, "images": [{"row": 5, "name": "more/still/f.png"}]}
    assert client.get("/images?start=99&name=x").json() == {"total": 0, "images": []}


def test_images_are_listed_by_composed_and_decomposed_letters(tmp_path, serve):
    decomposed = "Mu\N{COMBINING DIAERESIS}nster.png"  # as macOS writes it
    draw_image(tmp_path / decomposed)
    draw_image(tmp_path / "\N{LATIN SMALL LETTER O WITH DIAERESIS}.png", 1)
    made = Search_Images.index(tmp_path, index=tmp_path / "index", **SETTINGS)
    client = serve(make_searcher(made))
    for text in ("M\N{LATIN SMALL LETTER U WITH DIAERESIS}n", "mu\N{COMBINING DIAERESIS}n"):
        (image,) = client.get("/images", params={"name": text}).json()["images"]
        assert image["name"] == decomposed
    answer = client.get("/images", params={"name": "o\N{COMBINING DIAERESIS}"}).json()
    assert answer["total"] == 1


def test_a_deleted_image_keeps_its_results_and_is_reported(index, tmp_path, serve):
    folder = tmp_path / "photos"
    draw_images(folder, ["0.png", "1.png", "2.png"])
    made = Search_Images.index(folder, index=tmp_path / "index", **SETTINGS)
    client = serve(make_searcher(made), OWN)
    (folder / "1.png").unlink()
    answer = search(client, "images/1")
    assert found(answer)[0][1] == "1.png"
    assert answer.json()["changed"] == 1
    assert search(client, "images/0").json()["changed"] == 1
    assert not search(client, "images/0").json()["outdated"]
    for path in ("images/1", "images/1/thumbnail", "images/1/attention"):
        assert client.get(f"/{path}").status_code == 400
    assert "No such file" in search(client, "images/1", [0, 0, 9, 9]).json()["error"]
    Search_Images.index(folder, index=tmp_path / "index", **SETTINGS)
    assert search(client, "images/0").json()["outdated"]


def test_an_image_that_was_replaced_is_shown_and_searched_as_it_is_now(tmp_path, serve):
    folder = tmp_path / "photos"
    draw_images(folder, ["0.png", "1.png", "2.png"])
    made = Search_Images.index(folder, index=tmp_path / "index", **SETTINGS)
    client = serve(make_searcher(made), OWN)

    def shown(row):
        parts = ["thumbnail", "preview", "attention", "attention?box=0,0,40,40"]
        return [client.get(f"/images/{row}/{part}").content for part in parts]

    before = shown(1)
    assert found(search(client, "images/1"))[0][1:] == ("1.png", pytest.approx(1))
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes())
    after = shown(1)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert after[:2] == shown(2)[:2]
    answer = search(client, "images/1")
    assert found(answer) == expected(Search_Images.search(folder / "1.png", index=made), made)
    assert found(answer)[0][1:] == ("2.png", pytest.approx(1))
    assert answer.json()["changed"] == 1


def test_an_index_without_images_has_no_results(photo, tmp_path, serve):
    folder = tmp_path / "photos"
    folder.mkdir()
    draw_image(folder / "a.png")
    Search_Images.index(folder, index=tmp_path / "index", **SETTINGS)
    (folder / "a.png").unlink()
    searcher = make_searcher(Search_Images.index(folder, index=tmp_path / "index", **SETTINGS))
    searcher.warm_up()
    empty = serve(searcher, OWN)
    assert empty.get("/images").json() == {"total": 0, "images": []}
    assert found(search(empty, send(empty, photo.read_bytes()).json()["image"])) == []


def test_an_approximate_index_has_the_results_of_the_command(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate_update, "FEWEST_IMAGES", 5)
    for seed in range(60):
        draw_image(tmp_path / f"{seed}.png", seed, size=(32, 32))
    made = Search_Images.index(tmp_path, index=tmp_path / "index", approximate=True, **SETTINGS)
    assert made.approximate is not None
    query = Query("images/7", InputImage(made.path(7), (0, 0, 20, 20)), 7)
    matches = Search_Images.search(made.path(7), box=(0, 0, 20, 20), index=made)
    rows = [(made.names.index(match.path.name), match.similarity) for match in matches]
    assert list(map(tuple, make_searcher(made).search(query).found)) == rows


# Hostile requests


def png(width, height, data, *chunks):
    """Return a PNG of grey pixels with a header, more chunks and compressed data."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_a_bomb_is_refused_before_it_is_decoded(client, monkeypatch):
    rows = zlib.compress(bytes(12_001 * 12_000), 1)
    bomb = png(12_000, 12_000, rows)
    assert len(bomb) < 10**6

    def decode(image):
        raise AssertionError("the bomb is decoded")

    monkeypatch.setattr(reduced, "upright_rgb", decode)
    answer = send(client, bomb)
    assert answer.status_code == 400
    assert answer.json() == {"error": "this photo cannot be decoded: it has more than 100 megapixels"}
    answer = send(client, png(60_000, 60_000, b""))
    assert answer.json() == {"error": "this photo cannot be decoded: it has more than 178 megapixels"}


def test_a_bomb_in_the_text_of_an_image_is_refused(client):
    text = (b"zTXt", b"x\0\0" + zlib.compress(bytes(200 * 2**20), 9))
    answer = send(client, png(2, 2, zlib.compress(bytes(6)), text))
    assert answer.status_code == 400
    assert "cannot be decoded" in answer.json()["error"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\nrm -rf ~\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n%%EOF\n",
        b"%PDF-1.7",
        b"\xff\xd8\xff\xe0" + bytes(100),
        b"\x00\x00\x01\x00\x01\x00" + bytes(100),  # an icon
    ],
)
def test_what_is_no_image_is_refused_whatever_its_name(client, content):
    answer = client.post("/uploads", content=content, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("this photo cannot be decoded: ")


def test_file_names_are_neither_needed_nor_used(client, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for name in ("../../evil.jpg", "/etc/passwd", "C:\\evil.jpg", "..%2fevil.jpg", "a\0b.jpg"):
        headers = {"Content-Disposition": f'attachment; filename="{name!a}"'}
        answer = client.post("/uploads", content=photo.read_bytes(), headers=headers)
        assert re.fullmatch(r"uploads/[\w-]{22}", answer.json()["image"])
        form = client.post("/uploads", files={"file": (name, photo.read_bytes(), "image/jpeg")})
        assert form.status_code == 400  # no form is read
    assert sorted(tmp_path.rglob("*")) == before


@contextmanager
def written_files():
    """Collect the files that are opened for writing in a block."""
    written, is_active = [], True

    def note(event, arguments):  # a hook cannot be removed
        if (
            is_active
            and event == "open"
            and isinstance(arguments[1], str)
            and set(arguments[1]) & set("wax+")
        ):
            written.append(arguments[0])

    sys.addaudithook(note)
    try:
        yield written
    finally:
        is_active = False


def test_nothing_is_written_for_a_photo(client, photo, tmp_path):
    with written_files() as written:
        (tmp_path / "noticed").write_bytes(b"")
        image = send(client, photo.read_bytes()).json()["image"]
        found(search(client, image, [1, 1, 50, 50]))
        assert client.get(f"/{image}/attention").status_code == 200
    assert written == [str(tmp_path / "noticed")]


def test_too_large_photos_are_refused_also_without_their_length(client, monkeypatch):
    monkeypatch.setattr(page_application, "MOST_BYTES", 3 * 2**20)
    read = []

    def parts():
        for _ in range(100):
            read.append(1)
            yield bytes(2**20)

    for content in (bytes(3 * 2**20 + 1), parts()):
        answer = send(client, content)
        assert answer.status_code == 413
        assert answer.json() == {"error": "this photo has more than 3 MB"}
    assert client.post("/search", content=b"[" * 20_000).status_code == 413


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", ""]
)
def test_other_hosts_are_refused(client, host):
    for answer in (
        client.get("/", headers={"Host": host}),
        client.get("/images/0/thumbnail", headers={"Host": host}),
        client.post("/search", json={}, headers={"Host": host, "Origin": f"http://{host}"}),
    ):
        assert answer.status_code == 403
        assert "another name" in answer.json()["error"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:9", "localhost", "[::1]:8080"]
)
def test_names_of_this_computer_are_accepted(client, host):
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert client.get("/", headers=headers).status_code == 200
    assert search_with(client, headers).status_code == 200


def search_with(client, headers):
    return client.post("/search", json={"image": "images/0", "box": None}, headers=headers)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "https://127.0.0.1:8080",
        "http://localhost:8080",
        "",
    ],
)
def test_other_origins_are_refused(client, origin, photo):
    assert search_with(client, {"Origin": origin}).status_code == 403
    answer = client.post("/uploads", content=photo.read_bytes(), headers={"Origin": origin})
    assert answer.status_code == 403
    assert client.get("/images", headers={"Origin": origin}).status_code == 403


def test_a_post_without_an_origin_is_refused(searcher, serve):
    client = serve(searcher)
    assert search_with(client, {}).status_code == 403
    assert client.get("/images").status_code == 200


@pytest.mark.parametrize(("mode", "status"), [("no-cors", 403), ("cors", 403), ("navigate", 200)])
def test_other_sites_can_link_to_the_page_but_not_embed_its_images(searcher, mode, status, serve):
    client = serve(searcher)
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
    for path in ("/", "/images/0/thumbnail"):
        assert client.get(path, headers=headers).status_code == status
    assert (
        client.get("/", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": mode}).status_code == 200
    )


@pytest.mark.parametrize("box", [[64, 0, 70, 10], [0, -9, 64, -1], [10, 10, 10, 20], [20, 10, 10, 20]])
def test_a_box_outside_is_refused(client, box):
    draw = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(draw, "PNG")
    image = send(client, draw.getvalue()).json()["image"]
    for name, shown in ((image, "this photo"), ("images/0", r".*a\.png")):
        answer = search(client, name, box)
        assert answer.status_code == 400
        assert re.match(rf"the box .* has no pixel inside {shown} \(64 x 48\)", answer.json()["error"])
        answer = client.get(f"/{name}/attention?box={','.join(map(str, box))}")
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "null", "[" * 5000, '{"image": "images/0"}', '{"image": 3, "box": null}'),
        *('{"image": "images", "box": null}', '{"image": "images/0/1", "box": null}'),
        *(
            f'{{"image": "images/0", "box": {box}}}'
            for box in (
                "3",
                "[1, 2, 3]",
                '"abcd"',
                "[1, 2, 3, null]",
                "[0, 0, NaN, 9]",
                "[0, 0, 1e99, 9]",
                "[[]]",
            )
        ),
    ],
)
def test_invalid_searches_are_refused(client, content):
    answer = client.post("/search", content=content)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the request is not valid"}


@pytest.mark.parametrize("box", ["", "1,2,3", "1,2,3,x", "nan,0,9,9", "0,0,inf,9", "1,2,3,4,5"])
def test_invalid_boxes_in_addresses_are_refused(client, box):
    assert client.get(f"/images/0/attention?box={box}").status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/images/6/thumbnail", "/images/-1/thumbnail", "/images/a.png/thumbnail", "/images/٣/thumbnail"),
        *("/images/..%2f..%2f..%2fetc%2fpasswd/thumbnail", "/images/%2e%2e/thumbnail", "/images/0x1/preview"),
        *("/images/9999999999999999999999/preview", "/uploads/0/preview", "/uploads/..%2fa/preview"),
        *(
            "/style.css/..%2fpage.html.j2",
            "/page.html.j2",
            "/..%2fserver.py",
            "/files/0/thumbnail",
            "/a/b/c/d",
        ),
    ],
)
def test_only_rows_of_the_index_and_sent_photos_have_images(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"


def test_other_methods_are_refused(client):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, "/images/0").status_code == 405
    assert client.get("/search").status_code == 405
    assert client.post("/").status_code == 405


def test_every_answer_has_the_headers(client):
    answers = [client.get(path) for path in ("/", "/style.css", "/images", "/images/0/thumbnail", "/none")]
    for answer in (*answers, send(client, b"x"), client.get("/", headers={"Host": "x"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in answer.headers


def test_the_page_has_no_code_and_loads_only_from_here(searcher):
    assets = page_assets(searcher, "photos of <b>Ann & Bob</b>")
    text = assets["/"].data.decode()
    assert "photos of &lt;b&gt;Ann &amp; Bob&lt;/b&gt;" in text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert re.findall(r"<script[^>]*>.", text) == ['<script src="/page.js" type="module"><']
    for path, asset in assets.items():
        linked = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)|import\b(.*)", asset.data.decode())
        assert all(link in assets for group in linked for link in group if link), path
        addresses = re.findall(r"https?://[^\s\"'<]+", asset.data.decode())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path


def test_names_are_shown_as_one_line(tmp_path, serve):
    draw_image(tmp_path / "a\nb\u202e.png", 1)
    draw_image(tmp_path / "c.png", 2)
    made = Search_Images.index(tmp_path, index=tmp_path / "index", **SETTINGS)
    client = serve(make_searcher(made))
    assert client.get("/images").json()["images"][0]["name"] == r"a\nb\u202e.png"


def test_without_an_attention_head_there_are_no_heat_maps(tmp_path, serve):
    draw_image(tmp_path / "a.png", 1)
    draw_image(tmp_path / "b.png", 2)
    settings = SETTINGS | {"pooling": "rmac", "whiten": False}
    searcher = make_searcher(Search_Images.index(tmp_path, index=tmp_path / "index", **settings))
    client = serve(searcher, OWN)
    assert len(found(search(client, "images/0"))) == 2
    assert client.get("/images/0/attention").status_code == 404
    assert "show-heat" not in client.get("/").text
