import errno
import hashlib
import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from PIL import Image

from utils.data.mini import MiniSettings, benchmark, draw_benchmark, prepare_mini
from utils.data.mini.benchmark import VIEWS
from utils.data.mini.camera import Camera, warp
from utils.data.mini.facades import draw_facade
from utils.data.mini.scenes import draw_scene
from utils.data.oxford_paris import read_dataset
from utils.data.retrieval_dataset import check_queries
from utils.errors import UserError

SMALL = MiniSettings(seed=5, landmarks=2, distractors=5)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "Mini"
    draw_benchmark(folder, SMALL, workers=1)
    return folder


def test_is_a_data_set_in_oxfords_layout(small, caplog):
    data = read_dataset(small)
    check_queries(data, 1024)
    assert len(data.images) == 2 * len(VIEWS) + 5
    assert len(data.queries) == 2 * 3
    assert not caplog.records
    for query in data.queries:
        landmark = query.image.split("_")[0]
        labelled = [*query.good, *query.ok, *query.junk]
        assert query.image in query.good
        assert len(labelled) == len(set(labelled))
        assert all(name.startswith(landmark) for name in labelled)
        assert len(query.good) > 1
        with Image.open(data.images[query.image]) as image:
            x1, y1, x2, y2 = query.box
            assert 0 <= x1 < x2 <= image.width
            assert 0 <= y1 < y2 <= image.height


def test_the_same_seed_draws_the_same_files_in_any_number_of_processes(small, tmp_path):
    draw_benchmark(tmp_path / "again", SMALL, workers=2)
    assert digest(tmp_path / "again") == digest(small)


def test_another_seed_draws_other_images(small, tmp_path):
    draw_benchmark(tmp_path / "other", MiniSettings(6, 2, 5))
    assert digest(tmp_path / "other").keys() == digest(small).keys()
    same = digest(tmp_path / "other").items() & digest(small).items()
    assert not any(name.endswith(".jpg") for name, _ in same)


def test_more_distractors_leave_the_other_images_as_they_are(small, tmp_path):
    draw_benchmark(tmp_path / "more", MiniSettings(5, 2, 9))
    more = digest(tmp_path / "more")
    assert {name: more[name] for name in digest(small) if name != "mini.json"}.items() <= digest(
        small
    ).items()
    assert len(more) == len(digest(small)) + 4


@pytest.fixture
def tiny(monkeypatch):
    """Let prepare_mini draw one landmark and one distractor."""
    monkeypatch.setattr(benchmark, "MiniSettings", partial(MiniSettings, landmarks=1, distractors=1))


@pytest.fixture
def forked(monkeypatch):
    """Fork the processes that draw, so that the monkeypatches of the test apply to them."""
    pool = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("fork"))
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", pool)


def test_each_seed_is_drawn_once_into_a_separate_folder(tmp_path, tiny):
    assert prepare_mini(tmp_path, 0) == tmp_path / "Mini"
    assert prepare_mini(tmp_path, 3) == tmp_path / "Mini-seed3"
    assert names(tmp_path) == ["Mini", "Mini-seed3"]
    (tmp_path / "Mini" / "mark").touch()
    prepare_mini(tmp_path, 3)
    prepare_mini(tmp_path, 0)
    assert names(tmp_path / "Mini") == ["jpg", "lab", "mark", "mini.json"]


@pytest.mark.parametrize("record", [b"{", b"\xff\xfe\x00"])
def test_a_folder_drawn_with_other_settings_is_drawn_again(tmp_path, tiny, record):
    (tmp_path / "Mini").mkdir()
    (tmp_path / "Mini" / "mini.json").write_bytes(record)
    prepare_mini(tmp_path, 0)
    drawn = {"seed": 0, "landmarks": 1, "distractors": 1, "version": 1}
    assert json.loads((tmp_path / "Mini" / "mini.json").read_text()) == drawn
    assert len(names(tmp_path / "Mini" / "jpg")) == len(VIEWS) + 1


def test_a_folder_of_the_user_is_left_alone(tmp_path, caplog):
    (tmp_path / "Mini").mkdir()
    (tmp_path / "Mini" / "mine").touch()
    assert prepare_mini(tmp_path, 0) == tmp_path / "Mini"
    assert names(tmp_path / "Mini") == ["mine"]
    assert "is used as it is" in caplog.text


def test_a_folder_whose_record_cannot_be_read_is_left_alone(tmp_path, monkeypatch, caplog):
    (tmp_path / "Mini").mkdir()
    (tmp_path / "Mini" / "mini.json").write_text("{")

    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("utils.files.reading.open_regular", forbidden)
    prepare_mini(tmp_path, 0)
    monkeypatch.undo()
    assert names(tmp_path / "Mini") == ["mini.json"]
    assert "is used as it is" in caplog.text


def test_a_file_with_the_name_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "Mini").write_text("mine")
    with pytest.raises(UserError, match="Mini: it is a file"):
        prepare_mini(tmp_path, 0)
    assert (tmp_path / "Mini").read_text() == "mine"


@pytest.mark.parametrize(("theirs", "stays"), [(MiniSettings(0, 1, 1), True), (MiniSettings(0, 1, 2), False)])
def test_what_another_process_has_drawn_meanwhile_stays_if_it_is_the_same(
    tmp_path, tiny, forked, monkeypatch, theirs, stays
):
    folder = tmp_path / "Mini"

    def draw_beside_another_process(*args):
        folder.mkdir(exist_ok=True)
        (folder / "theirs").touch()
        (folder / "mini.json").write_text(json.dumps(asdict(theirs), indent=2) + "\n")
        return draw_scene(*args)

    monkeypatch.setattr(benchmark, "draw_scene", draw_beside_another_process)
    prepare_mini(tmp_path, 0)
    assert ("theirs" in names(folder)) == stays
    assert names(tmp_path) == ["Mini"]


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def out_of_memory(*_):
    if multiprocessing.parent_process() is not None:
        os._exit(1)


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (full_disk, "cannot write .*Mini: the disk is full"),
        (out_of_memory, "cannot draw the Mini benchmark: a drawing process was killed"),
    ],
)
def test_what_fails_in_another_process_is_one_line(tmp_path, tiny, forked, monkeypatch, failure, line):
    monkeypatch.setattr(benchmark, "draw_scene", failure)
    with pytest.raises(UserError, match=line) as error:
        prepare_mini(tmp_path, 0)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []


def draw_in_a_group(folder, _):
    os.setsid()
    draw_benchmark(folder, MiniSettings(landmarks=0, distractors=5000), workers=2)


def test_a_killed_run_leaves_no_process_and_the_next_run_no_temporary_files(tmp_path, forked):
    context = multiprocessing.get_context("fork")
    alive, held = context.Pipe(duplex=False)
    process = context.Process(target=draw_in_a_group, args=(tmp_path / "Mini", held))
    process.start()
    held.close()
    try:
        while not list(tmp_path.glob(".Mini.*/jpg/*.jpg")):
            assert process.is_alive()
            time.sleep(0.05)
        process.kill()
        assert alive.poll(60)  # at its end: all processes have closed the other side
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    assert names(tmp_path) == [f".Mini.{process.pid}.tmp"]
    draw_benchmark(tmp_path / "Mini", MiniSettings(landmarks=0, distractors=1))
    assert names(tmp_path) == ["Mini"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        draw_benchmark(tmp_path / "file" / "Mini", SMALL)


@pytest.mark.slow
def test_framing_decides_the_visible_share():
    shares = {"full": [], "part": [], "glimpse": []}
    for seed in range(20):
        for framing, values in shares.items():
            rng = np.random.default_rng(seed)
            values.append(draw_scene(rng, draw_facade(rng), framing).visible)
    full, part, glimpse = (np.mean(values) for values in shares.values())
    assert full > 0.8 > part > 0.4 > glimpse
    assert draw_scene(np.random.default_rng(0), None, "full").visible == 0


def test_a_camera_straight_ahead_is_a_pinhole():
    camera = Camera((640, 480), yaw=0, pitch=0, roll=0, scale=200, foot=(320, 400))
    # A building of height 1 is 200 pixels high, and 100 pixels at twice the distance.
    focal = 1.1 * 640
    points = np.array([[0, 0, 0], [0.5, 1, 0], [0, 1, focal / 200]])
    np.testing.assert_allclose(camera.project(points), [[320, 400], [420, 200], [320, 300]])


def test_warping_maps_corners_to_the_given_positions():
    image = Image.new("RGBA", (10, 10), (200, 0, 0, 255))
    warped = np.array(warp(image, np.array([(20, 10), (40, 10), (40, 30), (20, 30)]), (64, 48)))
    filled = np.argwhere(warped[..., 3] > 127)
    assert filled.min(axis=0).tolist() == [10, 20]
    assert filled.max(axis=0).tolist() == [29, 39]
