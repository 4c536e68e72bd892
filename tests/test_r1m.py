"""The distractors of the revisited sets, R1M: their archives are downloaded and unpacked one by one."""

import io
import json
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from helpers import assert_kills_are_made_good, tree
from PIL import Image

import Prepare_Datasets
from utils.data.open_dataset import read_folder
from utils.prepare import recipes
from utils.program.run_command import run_command

ADDRESS = "http://ptak.felk.cvut.cz/revisitop/revisitop1m/jpg/revisitop1m.{}.tar.gz"
LABELS = {
    "imlist": ["all_souls_000000", "oxford_000001"],
    "qimlist": ["all_souls_000000"],
    "gnd": [{"bbx": [0.0, 0.0, 8.0, 6.0], "easy": [1], "hard": [], "junk": [0]}],
}


def image(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


CONTENTS = {
    1: {"0d3/x.jpg": image(1), "0d4/x.jpg": image(2)},
    2: {"0d5/y.jpg": image(3), "0d5/readme.txt": b"hello"},
    3: {"0d6/z.jpg": image(4)},
}
"""Files of the archives by number."""

IMAGES = ["0d3_x", "0d4_x", "0d5_y", "0d6_z"]


@pytest.fixture
def requests():
    """The names of the files that the local server was asked for."""
    return []


@pytest.fixture
def server(tmp_path, monkeypatch, requests):
    """A folder of three archives of R1M that a local server sends instead of the hundred."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path.removeprefix("/"))
            super().do_GET()

        def log_message(self, *_):
            pass

    for number, files in CONTENTS.items():
        write_archive(folder / f"revisitop1m.{number}.tar.gz", files)
    host = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=host.serve_forever, daemon=True).start()
    parts = []
    for part in recipes.RECIPES["revisitop1m"][:3]:
        name = part.archives[0][0].rsplit("/", 1)[-1]
        local = ((f"http://127.0.0.1:{host.server_port}/{name}",),)
        parts.append(recipes.Part(part.folder, part.wanted, local, relocate=part.relocate, is_named=True))
    monkeypatch.setitem(recipes.RECIPES, "revisitop1m", tuple(parts))
    oxford = recipes.RECIPES["ROxford"][0]
    monkeypatch.setitem(recipes.RECIPES, "ROxford", (recipes.Part(oxford.folder, oxford.wanted, files=2),))
    yield folder
    host.shutdown()


@pytest.fixture
def oxford(tmp_path):
    """An archive of the images of a small Oxford, whose labels lie in the folder of ROxford."""
    labels = tmp_path / "data" / "ROxford" / "gnd_roxford5k.pkl"
    labels.parent.mkdir(parents=True)
    labels.write_bytes(pickle.dumps(LABELS))
    path = tmp_path / "images.tgz"
    write_archive(path, {f"{name}.jpg": image(9 + seed) for seed, name in enumerate(LABELS["imlist"])})
    return path


@pytest.fixture
def prepare(tmp_path, capsys):
    def run(*words):
        words = [str(word) for word in [*words, "--datasets-dir", tmp_path / "data"]]
        status = run_command(lambda: Prepare_Datasets.command_line(words))
        return status, *capsys.readouterr()

    return run


def unpacked(*numbers):
    """Return the files of R1M with some archives unpacked, by path."""
    return {
        f"jpg/revisitop1m.{number}/{name}": content
        for number in numbers
        for name, content in CONTENTS[number].items()
        if name.endswith(".jpg")
    }


def test_the_recipe_has_the_hundred_archives_of_the_authors_script():
    parts = recipes.RECIPES["revisitop1m"]
    assert [part.archives[0][0] for part in parts] == [ADDRESS.format(number) for number in range(1, 101)]
    assert len({part.folder for part in parts}) == 100


def test_each_archive_is_downloaded_unpacked_and_deleted(server, requests, prepare, tmp_path):
    status, _, err = prepare("get", "revisitop1m")
    assert status == 0, err
    assert tree(tmp_path / "data" / "revisitop1m") == unpacked(1, 2, 3)
    assert requests == [f"revisitop1m.{number}.tar.gz" for number in (1, 2, 3)]
    assert prepare("verify", "revisitop1m")[0] == 0
    assert prepare("get", "revisitop1m")[0] == 0
    assert len(requests) == 3


def test_a_later_run_downloads_only_the_archives_that_are_missing(server, requests, prepare, tmp_path):
    good = (server / "revisitop1m.2.tar.gz").read_bytes()
    (server / "revisitop1m.2.tar.gz").write_bytes(good[:-9])  # without the end of its checksum
    status, _, err = prepare("get", "revisitop1m")
    assert status == 2
    assert "revisitop1m.2.tar.gz is unreadable or incomplete" in err
    folder = tmp_path / "data" / "revisitop1m"
    assert tree(folder) == unpacked(1)
    status, out, _ = prepare("verify", "revisitop1m")
    assert status == 2
    assert "2 archives of revisitop1m are not unpacked: revisitop1m.2, revisitop1m.3" in out
    (server / "revisitop1m.2.tar.gz").write_bytes(good)
    requests.clear()
    assert prepare("get", "revisitop1m")[0] == 0
    assert requests == ["revisitop1m.2.tar.gz", "revisitop1m.3.tar.gz"]
    assert tree(folder) == unpacked(1, 2, 3)


@pytest.mark.parametrize("name", ["@eaDir/x.jpg", "x.jpg", "other/x.jpg"])
def test_other_files_beside_the_unpacked_archives_do_not_end_the_download(
    server, requests, prepare, tmp_path, name
):
    archives = [path.rename(tmp_path / path.name) for path in sorted(server.glob("revisitop1m.2.tar.gz"))]
    assert prepare("get", "revisitop1m")[0] == 2
    stray = tmp_path / "data" / "revisitop1m" / "jpg" / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(image(0))
    for path in archives:
        path.rename(server / path.name)
    status, _, err = prepare("get", "revisitop1m")
    assert status == 0, err
    assert (tmp_path / "data" / "revisitop1m" / "jpg" / "revisitop1m.2").is_dir()


def test_archives_on_disk_are_unpacked_and_kept(server, requests, prepare, tmp_path):
    given = [(server / f"revisitop1m.{number}.tar.gz").rename(tmp_path / f"revisitop1m.{number}.tar.gz")
             for number in (3, 1)]  # fmt: skip
    status, _, err = prepare("get", "revisitop1m", "--archive", *given)
    assert status == 0, err
    assert tree(tmp_path / "data" / "revisitop1m") == unpacked(1, 2, 3)
    assert requests == ["revisitop1m.2.tar.gz"]
    assert all(path.is_file() for path in given)
    other = given[0].rename(tmp_path / "other.tar.gz")
    _, _, err = prepare("get", "revisitop1m", "--archive", other)
    assert f"error: {other} is not an archive of this data set: it has another name" in err


def test_roxford1m_has_the_names_of_the_archives_and_the_labels_of_roxford(
    server, oxford, prepare, tmp_path, caplog
):
    given = (server / "revisitop1m.1.tar.gz").rename(tmp_path / "revisitop1m.1.tar.gz")
    status, _, err = prepare("get", "ROxford1M", "--archive", oxford, given)
    assert status == 0, err
    data = read_folder(tmp_path / "data" / "ROxford1M")
    assert list(data.images) == [*LABELS["imlist"], *IMAGES]
    assert json.loads((tmp_path / "data" / "ROxford1M" / "gnd_roxford5k.json").read_text()) == LABELS
    first = tmp_path / "data" / "revisitop1m" / "jpg" / "revisitop1m.1" / "0d3" / "x.jpg"
    assert first.samefile(data.images["0d3_x"])  # no second copy
    assert not any((tmp_path / "data").glob("*/downloads"))
    assert prepare("get", "ROxford1M")[0] == 0
    assert "ROxford1M exists already and was not changed" in caplog.text


def test_images_that_the_authors_script_unpacked_are_used(
    server, requests, oxford, prepare, tmp_path, caplog
):
    for files in CONTENTS.values():
        for name, content in files.items():
            path = tmp_path / "data" / "revisitop1m" / "jpg" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    status, _, err = prepare("get", "ROxford1M", "--archive", oxford)
    assert status == 0, err
    assert requests == []
    assert "was not unpacked by this program and is used as it is" in caplog.text
    assert list(read_folder(tmp_path / "data" / "ROxford1M").images) == [*LABELS["imlist"], *IMAGES]
    assert prepare("verify", "revisitop1m")[0] == 0


def test_a_run_killed_at_any_step_is_finished_by_the_next(server, oxford, tmp_path):
    """The run is killed before ten of its changes of folders, from the first to the last."""

    def prepare_into(folder):
        (folder / "ROxford").mkdir(parents=True, exist_ok=True)
        (folder / "ROxford" / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(LABELS))
        Prepare_Datasets.main("ROxford1M", datasets_dir=folder, archives=[oxford])

    assert_kills_are_made_good(prepare_into, tmp_path, least_steps=40)
