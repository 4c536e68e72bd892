import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image
from helpers import save_other_weights
from reference import pool_regions
from sklearn.decomposition import PCA

import LearningPCA_landmark
from models.backbones.registry import BACKBONES
from models.poolings.regions import rmac_regions
from utils.errors import UserError
from utils.images.loading import InputImage, load_pixels
from utils.program.run_command import run_command
from utils.weights.networks import load_backbone
from utils.whitening.pca import StreamingPCA
from utils.whitening.state import PCAProgress, load_state, save_state

ROOT = Path(__file__).parents[1]
COMPONENTS = 10
COMMON = [
    *("--backbone", "efficientnet_lite0", "--S", "128", "--L", "2", "--min-side", "64", "--device", "cpu"),
    *("--workers", "0", "--components", str(COMPONENTS), "--save-every", "0"),
]
RUN = """
import os, signal, sys
import LearningPCA_landmark as script
from utils.program.run_command import run_command

script.BLOCK = 4
{}
sys.exit(run_command(lambda: script.command_line(sys.argv[1:])))
"""
"""The script as a program, in blocks of four images."""

DIES_IN_THE_THIRD_BLOCK = """
def until_the_third_block(*arguments, **options):
    count = 0
    for output in outputs(*arguments, **options):
        if count == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        yield output
        count += len(output.indices)


outputs, script.network_outputs = script.network_outputs, until_the_third_block
"""
KILLS = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Fourteen images, one of them too small and one too narrow."""
    folder = tmp_path_factory.mktemp("data") / "Landmark" / "train" / "data"
    folder.mkdir(parents=True)
    for number in range(12):
        draw_image(folder / f"{number:02d}.png", number, [(128, 96), (96, 128), (64, 64)][number % 3])
    draw_image(folder / "narrow.png", 20, (128, 56))
    draw_image(folder / "wide.png", 21, (256, 64))
    return folder.parents[2]


@pytest.fixture
def learn(data, capsys):
    """A function that runs the command line in this process and returns status, output and errors."""

    def run(output, *options, datasets=data):
        words = [*COMMON, "--datasets-dir", datasets, "--output", output, *options]
        status = run_command(lambda: LearningPCA_landmark.command_line([str(word) for word in words]))
        return status, *capsys.readouterr()

    return run


def as_program(data, output, *options, change="pass", launcher=()):
    words = [*launcher, sys.executable, "-c", RUN.format(change)]
    words += [*COMMON, "--datasets-dir", str(data), "--output", str(output), *options]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=300, start_new_session=True
    )


def learned(output):
    folder = output / "efficientnet_lite0"
    return np.load(folder / "pca_components.npy"), np.load(folder / "pca_mean.npy")


def error_line(result):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    return err.splitlines()[-1]


@torch.inference_mode()
def region_vectors(paths):
    """Return the maxima of the regions of images, computed region by region."""
    spec = BACKBONES["efficientnet_lite0"]
    network = load_backbone(spec, None)
    vectors = []
    for path in paths:
        pixels = load_pixels(InputImage(path), 128).unsqueeze(0)
        features = network(spec.preprocessing()(pixels))[0]
        vectors.append(pool_regions(features.numpy(), rmac_regions(*pixels.shape[1:3], 2), np.max))
    return np.concatenate(vectors).astype(np.float64)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    done = as_program(data, output)
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.mark.slow
def test_the_files_are_scikit_learns_pca_of_the_region_maxima(data, undisturbed):
    components, mean = learned(undisturbed[0])
    vectors = region_vectors(sorted((data / "Landmark" / "train" / "data").glob("[01]*.png")))
    oracle = PCA(COMPONENTS, whiten=True, svd_solver="full").fit(vectors)
    assert components.dtype == mean.dtype == np.float32
    np.testing.assert_allclose(mean, -oracle.mean_, rtol=1e-4, atol=1e-6)
    whitened = (vectors + mean) @ components.T
    np.testing.assert_allclose(whitened, oracle.transform(vectors), rtol=1e-3, atol=1e-3)

    record = json.loads((undisturbed[0] / "efficientnet_lite0" / "pca.json").read_text())
    np.testing.assert_allclose(
        record["explained_variance"][:COMPONENTS], oracle.explained_variance_, rtol=1e-4
    )
    assert (record["images"], record["vectors"]) == (12, len(vectors))
    assert record["left_out"] == {"too_small": 2, "unreadable": []}
    assert record["settings"]["components"] == COMPONENTS
    assert json.loads(undisturbed[1].stdout)["vectors"] == len(vectors)


def test_all_that_is_written_lies_in_the_backbones_folder(undisturbed):
    assert [path.name for path in undisturbed[0].iterdir()] == ["efficientnet_lite0"]
    assert sorted(path.name for path in (undisturbed[0] / "efficientnet_lite0").iterdir()) == [
        *("network.json", "pca.json", "pca.png", "pca_components.npy", "pca_mean.npy", "pca_state.npz")
    ]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(data, undisturbed, tmp_path):
    killed = as_program(data, tmp_path, change=DIES_IN_THE_THIRD_BLOCK)
    assert killed.returncode == -9
    assert [path.name for path in (tmp_path / "efficientnet_lite0").iterdir()] == ["pca_state.npz"]
    with np.load(tmp_path / "efficientnet_lite0" / "pca_state.npz") as state:
        assert json.loads(str(state["about"]))["progress"]["done"] == 8
    done = as_program(data, tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("pca_components.npy", "pca_mean.npy", "pca.json"):
        actual, expected = (folder / "efficientnet_lite0" / name for folder in (tmp_path, undisturbed[0]))
        assert actual.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(data, undisturbed, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{RUN.format('pass')}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(script, *COMMON, "--datasets-dir", data, "--output", tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for actual, expected in zip(learned(tmp_path / "out"), learned(undisturbed[0]), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["vectors"] == json.loads(undisturbed[1].stdout)["vectors"]


def test_fewer_components_are_the_first_ones_and_need_no_images(undisturbed, learn, tmp_path, monkeypatch):
    folder = tmp_path / "efficientnet_lite0"
    folder.mkdir()
    state = (undisturbed[0] / "efficientnet_lite0" / "pca_state.npz").read_bytes()
    (folder / "pca_state.npz").write_bytes(state)
    monkeypatch.setattr(LearningPCA_landmark, "network_outputs", None)
    status, _, err = learn(tmp_path, "--resume", "--components", "3")
    assert status == 0, err
    np.testing.assert_array_equal(learned(tmp_path)[0], learned(undisturbed[0])[0][:3])


@pytest.mark.slow
def test_the_record_repeats_a_run_with_weights_of_the_user(learn, tmp_path):
    weights = save_other_weights(tmp_path / "weights.pth")
    assert learn(tmp_path / "first", "--backbone-weights", weights)[0] == 0
    record = tmp_path / "first" / "efficientnet_lite0" / "pca.json"
    assert (
        run_command(
            lambda: LearningPCA_landmark.command_line(
                ["--config", str(record), "--output", str(tmp_path / "second")]
            )
        )
        == 0
    )
    np.testing.assert_array_equal(learned(tmp_path / "second")[0], learned(tmp_path / "first")[0])


@pytest.mark.slow
def test_the_seed_draws_the_samples(learn, tmp_path):
    results = []
    for number, options in enumerate([("--seed", 1), ("--seed", 1), ("--seed", 2)]):
        status, _, err = learn(tmp_path / str(number), "--samples", "8", "--components", "3", *options)
        assert status == 0, err
        record = json.loads((tmp_path / str(number) / "efficientnet_lite0" / "pca.json").read_text())
        assert record["images"] + record["left_out"]["too_small"] == 8
        results.append(learned(tmp_path / str(number))[0])
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_unreadable_images_are_left_out_up_to_one_in_twenty(learn, tmp_path):
    folder = tmp_path / "Landmark" / "train" / "data"
    folder.mkdir(parents=True)
    for number in range(38):
        draw_image(folder / f"{number:02d}.png", number)
    (folder / "headless.png").write_bytes(b"")
    (folder / "bodiless.png").write_bytes((folder / "00.png").read_bytes()[:60])
    status, _, err = learn(tmp_path / "out", datasets=tmp_path)
    assert status == 0, err
    record = json.loads((tmp_path / "out" / "efficientnet_lite0" / "pca.json").read_text())
    assert sorted(Path(name).name for name in record["left_out"]["unreadable"]) == [
        *("bodiless.png", "headless.png")
    ]
    assert record["images"] == 38
    for number in range(20, 38):
        (folder / f"{number}.png").unlink()
    assert "2 of 22 images are unreadable" in error_line(learn(tmp_path / "other", datasets=tmp_path))


def test_what_is_there_is_not_replaced(learn, tmp_path):
    folder = tmp_path / "efficientnet_lite0"
    folder.mkdir()
    (folder / "pca_components.npy").write_text("precious")
    assert "is there already" in error_line(learn(tmp_path))
    assert "was not learned by this script" in error_line(learn(tmp_path, "--resume"))
    assert (folder / "pca_components.npy").read_text() == "precious"
    for name in ("pca_mean.npy", "pca.json", "pca.png"):
        (folder / "pca_components.npy").rename(folder / name)
        assert f"{name} is there already" in error_line(learn(tmp_path))
        (folder / name).rename(folder / "pca_components.npy")
    assert "nothing to resume" in error_line(learn(tmp_path / "none", "--resume"))


def test_a_state_of_other_settings_or_unreadable_is_reported(undisturbed, learn, tmp_path):
    folder = tmp_path / "efficientnet_lite0"
    folder.mkdir()
    state = (undisturbed[0] / "efficientnet_lite0" / "pca_state.npz").read_bytes()
    (folder / "pca_state.npz").write_bytes(state)
    assert "saved with other settings: L 2 (now 3)" in error_line(learn(tmp_path, "--resume", "--L", "3"))
    (folder / "pca_state.npz").write_bytes(state[: len(state) // 2])
    assert "pca_state.npz is unreadable" in error_line(learn(tmp_path, "--resume"))


@pytest.mark.parametrize(
    "change",
    [
        {"progress": {"done": "3", "unreadable": []}},
        {"progress": {"done": 11, "unreadable": []}},
        {"progress": {"done": -1, "unreadable": []}},
        {"progress": {"done": 3, "unreadable": [3]}},
        {"progress": {"done": 3}},
        {"settings": []},
        {"mean": np.zeros(3)},
        {"scatter": np.full((2, 2), np.nan)},
        {"count": np.array(-1)},
        {"rows": np.zeros((3, 1))},
        {"eps": np.array("x")},
    ],
)
def test_an_invalid_state_is_one_line_of_error(tmp_path, change):
    path = tmp_path / "pca_state.npz"
    pca = StreamingPCA(2)
    pca.add(np.random.default_rng(0).random((5, 2)))
    save_state(path, pca, PCAProgress(10, ["a"]), {"L": 2})
    loaded, progress = load_state(path, {"L": 2}, channels=2, images=10)
    assert (progress.done, progress.unreadable) == (10, ["a"])
    np.testing.assert_array_equal(loaded.mean, pca.mean)
    about = {"progress": {"done": 10, "unreadable": []}, "settings": {"L": 2}}
    arrays = {key: value for key, value in change.items() if key not in about}
    about |= {key: value for key, value in change.items() if key in about}
    np.savez(path, about=np.array(json.dumps(about)), **(pca.state_dict() | arrays))
    with pytest.raises(UserError, match=rf"{path}[^\n]* start anew"):
        load_state(path, {"L": 2}, channels=2, images=10)


def test_invalid_input_is_reported_before_any_work(learn, tmp_path, monkeypatch):
    monkeypatch.setattr(LearningPCA_landmark, "network_outputs", None)
    assert "is missing" in error_line(learn(tmp_path / "out", datasets=tmp_path))
    (tmp_path / "Landmark" / "train" / "data").mkdir(parents=True)
    assert "no images in" in error_line(learn(tmp_path / "out", datasets=tmp_path))
    (tmp_path / "Landmark" / "train" / "data" / "empty.jpg").touch()
    assert "none of 1 images is large enough" in error_line(learn(tmp_path / "out", datasets=tmp_path))
    line = error_line(learn(tmp_path / "out", "--min-side", "129"))
    assert "none of 14 images is large enough" in line
    assert "too few for 500 components" in error_line(learn(tmp_path / "out", "--components", "500"))
    assert "have 1280 dimensions" in error_line(learn(tmp_path / "out", "--components", "1281"))
    (tmp_path / "file").touch()
    assert "cannot write" in error_line(learn(tmp_path / "file"))
    assert not (tmp_path / "out").exists()


def test_components_that_the_data_do_not_carry_are_an_error(learn, tmp_path):
    folder = tmp_path / "Landmark" / "train" / "data"
    folder.mkdir(parents=True)
    for number in range(4):
        draw_image(folder / f"{number}.png", 0)  # the same image four times
    vectors = region_vectors([folder / "0.png"])
    rank = np.linalg.matrix_rank(vectors - vectors.mean(axis=0), tol=1e-3)
    assert 0 < rank < len(vectors) == 8
    line = error_line(learn(tmp_path / "out", "--components", "12", datasets=tmp_path))
    assert f"the data have only {rank} components (from 32 vectors of 1280 dimensions), not 12" in line
    assert not (tmp_path / "out" / "efficientnet_lite0" / "pca_components.npy").exists()


def test_a_state_of_other_images_with_the_same_names_is_reported(learn, tmp_path):
    folder = tmp_path / "Landmark" / "train" / "data"
    folder.mkdir(parents=True)
    for number in range(4):
        draw_image(folder / f"{number}.png", number)
    assert learn(tmp_path / "out", "--components", "5", datasets=tmp_path)[0] == 0
    draw_image(folder / "3.png", 99, (72, 48))
    line = error_line(learn(tmp_path / "out", "--components", "5", "--resume", datasets=tmp_path))
    assert "saved with other settings: image_digest " in line


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_saves_what_it_has(data, undisturbed, tmp_path, number, workers):
    """The signal reaches the main process, and with workers these too, as from schedulers and terminals."""
    assert KILLS in DIES_IN_THE_THIRD_BLOCK
    sent = f"os.kill(os.getpid(), {number:d})"
    if workers:
        sent = f"import subprocess; subprocess.run(['sh', '-c', 'kill -{number:d} 0'])"
    stops = DIES_IN_THE_THIRD_BLOCK.replace(KILLS, sent)
    words = ["--save-every", "999", "--workers", str(workers)]
    stopped = as_program(data, tmp_path, *words, change=stops)
    assert stopped.returncode == 128 + number, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == "stopped after 8 images; --resume continues from there"
    with np.load(tmp_path / "efficientnet_lite0" / "pca_state.npz") as state:
        assert json.loads(str(state["about"]))["progress"]["done"] == 8
    assert as_program(data, tmp_path, "--resume").returncode == 0
    for actual, expected in zip(learned(tmp_path), learned(undisturbed[0]), strict=True):
        assert np.array_equal(actual, expected)


def test_images_of_several_folders_nested_and_without_suffix_are_learned_from(learn, data, tmp_path):
    folder = data / "Landmark" / "train" / "data"
    halves = [tmp_path / "a", tmp_path / "b"]
    for number in range(12):
        path = halves[number // 6] / str(number % 3) / "photos" / f"{number:02d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{number:02d}.png", path)
    records = []
    for name, images in (("one", []), ("two", ["--images", *map(str, halves)])):
        status, _, err = learn(tmp_path / name, *images)
        assert status == 0, err
        records.append(json.loads((tmp_path / name / "efficientnet_lite0" / "pca.json").read_text()))
    assert records[0]["images"] == records[1]["images"] == 12
    assert records[0]["explained_variance"] == pytest.approx(records[1]["explained_variance"])


def test_s_is_the_backbones_where_it_is_not_given():
    options = LearningPCA_landmark.PCAOptions
    assert options(backbone="resnet101_caffe").longer_side == 800  # the original's
    assert options(backbone="efficientnet_lite2").longer_side == 512
    assert options(backbone="efficientnet_lite2", S=640).longer_side == 640
