"""An index in Milvus: compared with a local index, interrupted, and without its server."""

import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_image, draw_images
from helpers import FAST_INDEX, INDEX_SETTINGS

import Search_Images
from utils.descriptors.describe import Descriptors, NoReadableImageError
from utils.descriptors.keys import image_keys
from utils.errors import UserError
from utils.image_index import milvus, milvus_index, milvus_rows
from utils.image_index.milvus import Address
from utils.image_index.milvus_index import Changes, MilvusIndex, update_milvus_index
from utils.images.loading import InputImage

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

ROOT = Path(__file__).parents[1]


@pytest.fixture
def images(tmp_path):
    """A folder of seven images, one of them with a copy that sorts differently as path and as text."""
    folder = tmp_path / "images"
    draw_images(folder, ["a.png", "b.png", "c.jpg", "more/e.png", "more/still/f.png", "z.png"])
    shutil.copy(folder / "more" / "e.png", folder / "more-e.png")
    return folder


def vector(path):
    """Return the descriptor, of length 1, that `Described` gives a file."""
    values = np.frombuffer(path.read_bytes()[:4], np.uint8).astype(np.float32) + 1
    return values / np.linalg.norm(values)


class Described:
    """A fast description of the files of a folder, and the names of the files that were described."""

    def __init__(self, folder):
        self.folder = folder
        self.names = []

    def __call__(self, names, store):
        keys = image_keys([InputImage(self.folder / name) for name in names], names)
        readable = [index for index, name in enumerate(names) if not name.startswith("unreadable")]
        if not readable:
            raise NoReadableImageError(f"none of {len(names)} can be decoded")
        for index in readable:
            if keys[index] not in store:
                self.names.append(names[index])
                store.add([keys[index]], vector(self.folder / names[index])[None])
        store.flush()
        store.read()
        keys = [keys[index] for index in readable]
        return Descriptors(store.rows(keys), {}, keys)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def update(folder, address, describe=None, settings=INDEX_SETTINGS):
    """Update an index from files as `Described` does."""
    describe = Described(folder) if describe is None else describe
    pending = folder.parent / "pending"
    return update_milvus_index(address, pending, folder, names_in(folder), settings, describe)


def rows_of(address):
    """Return the descriptors in an index by key."""
    index = MilvusIndex(address)
    ids = sorted(milvus_rows.all_ids(index._client, address))
    parts = [index._part([row_id]) for row_id in ids]
    index.close()
    return {part.keys[0]: part.rows[:][0] for part in parts}


def assert_complete(folder, address):
    """Check that an index has exactly the files of a folder."""
    rows = rows_of(address)
    names = names_in(folder)
    assert rows.keys() == set(image_keys([InputImage(folder / name) for name in names], names))
    for key, row in rows.items():
        np.testing.assert_array_equal(row, vector(folder / key.split("\0")[0]))
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, "photos.db"}


def write_files(folder, numbers, version=0):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        contents = np.random.default_rng([number, version]).integers(0, 256, 16, np.uint8)
        (folder / f"{number:02}.png").write_bytes(contents.tobytes())


@pytest.fixture
def files(tmp_path):
    """A folder of eight files."""
    write_files(tmp_path / "files", range(8))
    return tmp_path / "files"


@pytest.fixture
def local(tmp_path):
    return Address(str(tmp_path / "photos.db"), "photos")


def test_the_options_of_a_run_that_described_nothing_do_not_bind_the_next_run(files, local):
    def interrupt(names, store):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(files, local, interrupt, {**INDEX_SETTINGS, "S": 128})
    update(files, local)
    assert_complete(files, local)


def test_results_are_those_of_a_local_index(command, images, tmp_path):
    draw_image(tmp_path / "other.png", 77)
    assert command("index", images, *FAST_INDEX)[0] == 0
    status, out, _ = command("index", images, *FAST_INDEX, "--milvus", "photos.db")
    assert (status, out) == (
        0,
        f"7 images of {images} are in photos.db, collection photos: 7 new or changed, 0 removed\n",
    )
    for words in (
        [images / "a.png"],
        [images / "more" / "e.png"],
        [images / "more-e.png", "--top", "3"],
        [tmp_path / "other.png"],
        [images / "b.png", "--box", "8", "8", "40", "40"],
    ):
        local = command("query", *words, "--json", "local.json")
        assert local[:2] == command("query", *words, "--json", "milvus.json", "--milvus", "photos.db")[:2]
        assert local[0] == 0
        assert local[1]
        assert (tmp_path / "local.json").read_bytes() == (tmp_path / "milvus.json").read_bytes()
    assert not (tmp_path / "search_index" / "pending").exists()


def test_a_page_names_the_number_of_all_images(command, images, tmp_path):
    command("index", images, *FAST_INDEX, "--milvus", "photos.db")
    assert (
        command("query", images / "a.png", "--top", "1", "--milvus", "photos.db", "--html", "p.html")[0] == 0
    )
    assert f"7 images of {images}" in (tmp_path / "p.html").read_text()


def test_from_python(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"S": 64, "pooling": "rmac", "whiten": False, "device": "cpu", "workers": 0}
    index = Search_Images.index(images, milvus="photos.db", collection="mine", **settings)
    try:
        assert index.size == 7
        matches = Search_Images.search(images / "a.png", index=index, top=2, device="cpu")
        assert [match.rank for match in matches] == [1, 2]
        assert matches[0].path == images / "a.png"
    finally:
        index.close()


def test_only_new_and_changed_images_are_described_and_gone_ones_removed(files, local):
    first = Described(files)
    assert update(files, local, first) == Changes(8, 8, 0)
    assert first.names == names_in(files)
    write_files(files, [3], version=1)
    write_files(files, [8, 9])
    (files / "05.png").unlink()
    second = Described(files)
    assert update(files, local, second) == Changes(9, 3, 2)
    assert second.names == ["03.png", "08.png", "09.png"]
    assert_complete(files, local)
    assert update(files, local) == Changes(9, 0, 0)
    for path in files.iterdir():
        path.unlink()
    assert update(files, local) == Changes(0, 0, 9)
    index = MilvusIndex(local)
    assert index.nearest(np.ones(4, np.float32), 3, index.with_images([InputImage(files)])).names == []
    index.close()


def test_unreadable_images_of_a_message_are_left_out(files, local, monkeypatch):
    monkeypatch.setattr(milvus_index, "DESCRIBED_IMAGES", 2)
    for number in range(5):
        (files / f"unreadable{number}.png").write_bytes(b"nothing")
    assert update(files, local) == Changes(8, 8, 0)
    for number in range(8):
        (files / f"{number:02}.png").unlink()
    with pytest.raises(NoReadableImageError):
        update(files, Address(local.uri, "other"))


def test_old_rows_of_a_changed_image_take_no_rank(files, local, monkeypatch):
    update(files, local)
    monkeypatch.setattr(milvus_index, "MARGIN", 0)
    described = image_keys([InputImage(files / "00.png")] * 6, ["00.png"] * 6)
    keys = [f"{key}{number}" for number, key in enumerate(described)]
    from utils.descriptors.rows import StoredRows

    rows = StoredRows([np.repeat(vector(files / "00.png")[None], 6, 0)], np.arange(6))
    with milvus.connected(local) as client:
        milvus_rows.read_record(client, local)
        milvus_rows.send(client, local, Descriptors(rows, {}, keys))
    index = MilvusIndex(local)
    empty = index._part([])
    part = index.nearest(vector(files / "00.png"), 3, empty)
    index.close()
    vectors = np.stack([vector(path) for path in sorted(files.iterdir())])
    expected = np.argsort(-vectors @ vectors[0])[:3]
    nearest = part.nearest(vectors[0], 3)
    assert [part.names[row] for row, _ in nearest] == [f"{number:02}.png" for number in expected]


KILLED = """
import os, signal, sys
from pathlib import Path
import pymilvus
sys.path[:0] = [{root!r}, {tests!r}]
from test_milvus_index import Address, milvus_index, milvus_rows, update
milvus_rows.SENT_BYTES = 32  # two descriptors per message
milvus_index.DESCRIBED_IMAGES = 3
count = 0
def counted(function):
    def call(*args, **options):
        global count
        count += 1
        if count == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call
for name in ("create_collection", "upsert", "delete"):
    setattr(pymilvus.MilvusClient, name, counted(getattr(pymilvus.MilvusClient, name)))
update(Path({folder!r}), Address({uri!r}, "photos"))
"""


def killed_update(files, address, at):
    """Update an index in a process that kills itself at a request to Milvus, and return if it was killed."""
    code = KILLED.format(
        root=str(ROOT), tests=str(ROOT / "tests"), at=at, folder=str(files), uri=str(address.uri)
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3, 5, 6])
def test_an_update_killed_at_any_request_loses_nothing(files, local, at):
    update(files, local)
    write_files(files, [3], version=1)
    write_files(files, range(8, 13))
    (files / "05.png").unlink()
    # Twice two messages, the record and a deletion.
    assert killed_update(files, local, at)
    kept = [name for name in names_in(files) if name not in ("03.png", "05.png") and name < "08.png"]
    rows = {key.split("\0")[0]: row for key, row in rows_of(local).items()}
    for name in kept:
        np.testing.assert_array_equal(rows[name], vector(files / name))
    assert "03.png" in rows
    again = Described(files)
    update(files, local, again)
    assert set(again.names) <= {"03.png", *(f"{number:02}.png" for number in range(8, 13))}
    assert_complete(files, local)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_first_update_killed_at_any_request_is_continued(files, local, at):
    assert killed_update(files, local, at)
    again = Described(files)
    update(files, local, again)
    assert "00.png" not in again.names  # it waited for Milvus
    assert_complete(files, local)


def test_a_collection_that_a_killed_process_has_begun_is_created(files, local):
    with milvus.connected(local, create=True):
        pass
    for name in ("photos", "photos_settings"):  # as Milvus Lite makes it, before its schema
        (Path(local.uri) / "collections" / name).mkdir(parents=True)
    assert update(files, local) == Changes(8, 8, 0)
    assert_complete(files, local)


def test_a_collection_without_its_index_is_given_one(files, local):
    update(files, local)
    with milvus.connected(local) as client:
        for name in ("photos", "photos_settings"):
            client.release_collection(name)
            client.drop_index(name, "descriptor")
    assert_complete(files, local)
    with milvus.connected(local) as client:
        (index,) = client.list_indexes("photos")
        assert client.describe_index("photos", index)["metric_type"] == "IP"


class Server:
    """A server of Milvus Lite in another process."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.start()

    def start(self):
        arguments = f"{str(self.folder)!r}, '127.0.0.1', {self.port}"
        code = f"from milvus_lite.adapter.grpc.server import run_server; run_server({arguments})"
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server does not start")

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "server.db")
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_goes_away_during_an_update_loses_nothing(files, server, monkeypatch):
    monkeypatch.setattr(milvus_index, "DESCRIBED_IMAGES", 3)
    address = Address(f"http://127.0.0.1:{server.port}", "photos")
    update(files, address)
    write_files(files, range(8, 12))
    send, sent = milvus_index.send, []

    def send_and_lose_server(*arguments):
        send(*arguments)
        sent.append(1)
        if len(sent) == 1:
            server.kill()

    with monkeypatch.context() as patch:
        for module in (milvus, milvus_index, milvus_rows):
            patch.setattr(module, "SECONDS", 3.0)
        patch.setattr(milvus_index, "send", send_and_lose_server)
        with pytest.raises(UserError) as error:
            update(files, address)
        assert str(error.value).startswith(f"Milvus at {address.uri} does not answer (")
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="does not answer"):
            update(files, address)
    server.start()
    again = Described(files)
    update(files, address, again)
    assert again.names == []  # the first three are in Milvus, the last one waited for it
    assert_complete(files, address)


def test_a_server_that_is_away_is_one_line(command, images, caplog):
    for words in (["index", images, *FAST_INDEX], ["query", images / "a.png"]):
        status, out, err = command(*words, "--milvus", "http://127.0.0.1:9")
        assert (status, out) == (2, "")
        assert err.startswith("error: Milvus at http://127.0.0.1:9 does not answer (")
        assert len(err.splitlines()) == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_local_database_in_use_is_one_line(command, images, local):
    command("index", images, *FAST_INDEX, "--milvus", local.uri)
    other = "from milvus_lite import MilvusLite; db = MilvusLite({!r}); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", other.format(local.uri)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        status, out, err = command("query", images / "a.png", "--milvus", local.uri)
        process.communicate(b"\n")
    assert (status, out) == (2, "")
    assert "wait for the process that uses it" in err
    assert len(err.splitlines()) == 1
    assert command("query", images / "a.png", "--milvus", local.uri)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--milvus", "nothing.db"], "no index at nothing.db"),
        (["--milvus", "photos"], "milvus photos is neither an address"),
        (["--milvus", "file.db"], "file.db is not a database of Milvus Lite 3"),
        (["--milvus", "photos.db", "--collection", "a-b"], "collection a-b is not a name"),
        (["--milvus", "photos.db", "--collection", "other"], "no index at photos.db, collection other"),
        (["--milvus", "photos.db", "--top", "16384"], "top 16384 is too large"),
        (["--collection", "other"], "has no effect without milvus"),
    ],
)
def test_what_cannot_be_searched_is_one_line(command, images, tmp_path, words, message):
    (tmp_path / "file.db").write_text("mine")
    command("index", images, *FAST_INDEX, "--milvus", "photos.db")
    status, out, err = command("query", images / "a.png", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "nothing.db").exists()


def test_an_index_is_not_mixed_with_another(files, local, tmp_path):
    update(files, local)
    with pytest.raises(UserError, match=r"S 64 .now 65.*name another --collection"):
        update(files, local, settings=INDEX_SETTINGS | {"S": 65})
    write_files(tmp_path / "more", range(2))
    with pytest.raises(UserError, match=r"is the index of .*files: name another --collection"):
        update(tmp_path / "more", local)
    moved = files.rename(tmp_path / "moved")
    assert update(moved, local) == Changes(8, 0, 0)
    index = MilvusIndex(local)
    index.close()
    assert index.folder == moved


def test_a_collection_of_another_program_is_refused(files, local):
    with milvus.connected(local, create=True) as client:
        client.create_collection("photos", dimension=4)
    with pytest.raises(UserError, match="was not made by this program"):
        update(files, local)
    with pytest.raises(UserError, match="was not made by this program"):
        MilvusIndex(local)


def test_without_pymilvus_the_error_names_it(command, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    status, _, err = command("index", images, *FAST_INDEX, "--milvus", "photos.db")
    assert (status, err) == (2, "error: Milvus needs two packages: pip install pymilvus milvus-lite\n")


def test_options_without_effect_are_refused(command, images):
    words = ["--milvus", "photos.db", "--store-precision", "float16"]
    status, _, err = command("index", images, *FAST_INDEX, *words)
    assert status == 2
    assert "store_precision float16 has no effect in Milvus" in err
