import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from utils.errors import UserError
from utils.mini_benchmark import MiniSettings, draw_benchmark, prepare_mini
from utils.mini_benchmark.benchmark import VIEWS
from utils.mini_benchmark.camera import Camera, warp
from utils.mini_benchmark.facades import draw_facade
from utils.mini_benchmark.scenes import draw_scene
from utils.oxford_paris import check_queries, read_dataset

SMALL = MiniSettings(seed=5, landmarks=2, distractors=5)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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


def test_another_seed_draws_other_pictures(small, tmp_path):
    draw_benchmark(tmp_path / "other", MiniSettings(6, 2, 5))
    same = digest(tmp_path / "other").items() & digest(small).items()
    assert not any(name.endswith(".jpg") for name, _ in same)


def test_more_distractors_leave_the_other_pictures_as_they_are(small, tmp_path):
    draw_benchmark(tmp_path / "more", MiniSettings(5, 2, 9))
    more = digest(tmp_path / "more")
    assert {name: more[name] for name in digest(small) if name != "mini.json"}.items() <= digest(
        small
    ).items()
    assert len(more) == len(digest(small)) + 4


def test_is_drawn_once_a_seed(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "utils.mini_benchmark.benchmark.draw_benchmark", lambda folder, settings: drawn.append(settings.seed)
    )
    folder = tmp_path / "Mini"
    prepare_mini(folder, 1)
    folder.mkdir()
    record = folder / "mini.json"
    settings = {"seed": 1, "landmarks": 12, "distractors": 110, "version": 1}
    record.write_text(json.dumps(settings, indent=2) + "\n")
    prepare_mini(folder, 1)
    assert drawn == [1]
    prepare_mini(folder, 2)
    record.write_text("{")
    prepare_mini(folder, 3)
    assert drawn == [1, 2, 3]


def test_a_folder_of_the_users_own_is_left_alone(tmp_path):
    (tmp_path / "Mini").mkdir()
    (tmp_path / "Mini" / "mine").touch()
    prepare_mini(tmp_path / "Mini", 0)
    assert [path.name for path in (tmp_path / "Mini").iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        draw_benchmark(tmp_path / "file" / "Mini", SMALL)


def test_framing_decides_how_much_is_visible():
    shares = {"whole": [], "part": [], "glimpse": []}
    for seed in range(20):
        for framing, seen in shares.items():
            rng = np.random.default_rng(seed)
            seen.append(draw_scene(rng, draw_facade(rng), framing).visible)
    whole, part, glimpse = (np.mean(seen) for seen in shares.values())
    assert whole > 0.8 > part > 0.4 > glimpse
    assert draw_scene(np.random.default_rng(0), None, "whole").visible == 0


def test_a_camera_straight_ahead_is_a_pinhole():
    camera = Camera((640, 480), yaw=0, pitch=0, roll=0, scale=200, foot=(320, 400))
    # A building of height 1 is 200 pixels high; twice as far away, half of that.
    focal = 1.1 * 640
    points = np.array([[0, 0, 0], [0.5, 1, 0], [0, 1, focal / 200]])
    np.testing.assert_allclose(camera.project(points), [[320, 400], [420, 200], [320, 300]])


def test_warping_maps_corners_to_their_places():
    image = Image.new("RGBA", (10, 10), (200, 0, 0, 255))
    warped = np.array(warp(image, np.array([(20, 10), (40, 10), (40, 30), (20, 30)]), (64, 48)))
    filled = np.argwhere(warped[..., 3] > 127)
    assert filled.min(axis=0).tolist() == [10, 20]
    assert filled.max(axis=0).tolist() == [29, 39]
