import io
import json
import os
import pickle
import shutil
import subprocess
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import recipe_state_dict
from helpers import assert_kills_are_made_good, tree
from PIL import Image
from scipy.io import savemat

import Prepare_Datasets
from models.backbones.registry import BACKBONES
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.data.imagenet import read_training_images, read_wnids
from utils.data.imagenet_validation import read_validation_images
from utils.data.oxford_paris import read_dataset
from utils.prepare import recipes as dataset_recipes
from utils.program.run_command import run_command

ROOT = Path(__file__).parents[1]
QUERY = "all_souls_000000 1 1 6 5"


def image(seed=0):
    """Return the bytes of a small JPEG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def archive(files, mode="w:gz"):
    """Return the bytes of a tar file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def labels(query="all_souls_1", text=QUERY):
    files = {f"{query}_query.txt": text + "\n"}
    files |= {f"{query}_{kind}.txt": "" for kind in ("ok", "junk")}
    files[f"{query}_good.txt"] = "oxford_000001\n"
    return {name: content.encode() for name, content in files.items()}


OXFORD = {"oxbuild-v1/all_souls_000000.jpg": image(0), "oxbuild-v1/oxford_000001.jpg": image(1)}
PARIS_1 = {"paris/defense/paris_defense_000001.jpg": image(2), "paris/Thumbs.db": b"x"}
PARIS_2 = {"paris/eiffel/paris_eiffel_000001.jpg": image(3)}
REVISITED = {
    "imlist": ["all_souls_000000", "oxford_000001"],
    "qimlist": ["all_souls_000000"],
    "gnd": [{"bbx": [1.0, 1, 6, 5], "easy": np.array([1]), "hard": [], "junk": [0]}],
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder whose files a local server sends instead of the mirrors; small sets count as complete."""
    folder = tmp_path / "server"
    folder.mkdir()
    for name, content in {
        "oxbuild_images.tgz": archive(OXFORD),
        "gt_files_170407.tgz": archive(labels()),
        "paris_1.tgz": archive(PARIS_1),
        "paris_2.tgz": archive(PARIS_2),
        "paris_120310.tgz": archive(labels("defense_1", "paris_defense_000001 0 0 8 6")),
        "gnd_roxford5k.pkl": pickle.dumps(REVISITED),
    }.items():
        (folder / name).write_bytes(content)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    counts = {"Oxford": (2, 4), "Paris": (2, 4), "ROxford": (2, 0), "RParis": (2, 0)}
    for name, files in counts.items():
        parts = []
        for part, count in zip(dataset_recipes.RECIPES[name], files, strict=False):
            local = tuple(
                tuple(f"{here}/{mirror.rsplit('/', 1)[-1]}" for mirror in mirrors if "https" in mirror)
                for mirrors in part.archives
            )
            parts.append(dataset_recipes.Part(part.folder, part.wanted, local, count))
        monkeypatch.setitem(dataset_recipes.RECIPES, name, tuple(parts))
    monkeypatch.setitem(
        dataset_recipes.REVISITED_LABELS, "ROxford", ("gnd_roxford5k.pkl", (f"{here}/gnd_roxford5k.pkl",))
    )
    monkeypatch.setattr(Prepare_Datasets, "COMPUTE_AP", (f"{here}/compute_ap.cpp",))
    yield folder
    server.shutdown()


@pytest.fixture
def prepare(tmp_path, capsys):
    """A function that runs the command line in this process and returns status, output and errors."""

    def run(*words):
        folders = ["--datasets-dir", tmp_path / "data", "--weights-dir", tmp_path / "weights"]
        words = [str(word) for word in [*words, *folders]]
        status = run_command(lambda: Prepare_Datasets.command_line(words))
        return status, *capsys.readouterr()

    return run


def error_line(result):
    status, _, err = result
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in err
    return last


def test_oxford_is_downloaded_and_laid_out_flat(server, prepare, tmp_path):
    status, _, err = prepare("Oxford")
    assert status == 0, err
    expected = {f"jpg/{Path(name).name}": content for name, content in OXFORD.items()}
    expected |= {f"lab/{name}": content for name, content in labels().items()}
    assert tree(tmp_path / "data" / "Oxford") == expected
    assert read_dataset(tmp_path / "data" / "Oxford").queries[0].good == {"oxford_000001"}


def test_complete_work_is_not_done_again(server, prepare, tmp_path):
    prepare("Oxford")
    for path in server.iterdir():
        path.unlink()
    before = tree(tmp_path / "data")
    status, _, err = prepare("Oxford")
    assert status == 0, err
    assert tree(tmp_path / "data") == before


def test_the_two_archives_of_paris_make_one_folder(server, prepare, tmp_path):
    assert prepare("Paris")[0] == 0
    assert sorted(path.name for path in (tmp_path / "data" / "Paris" / "jpg").iterdir()) == [
        *("paris_defense_000001.jpg", "paris_eiffel_000001.jpg")
    ]


def test_archives_are_recognised_by_their_contents(server, prepare, tmp_path):
    given = []
    for number, name in enumerate(("gt_files_170407.tgz", "oxbuild_images.tgz")):
        given.append((server / name).rename(tmp_path / f"{number}.bin"))
    assert prepare("Oxford", "--archive", *given)[0] == 0
    assert len(tree(tmp_path / "data" / "Oxford")) == 6
    assert all(path.exists() for path in given)
    stranger = tmp_path / "stranger.tgz"
    stranger.write_bytes(archive({"readme.txt": b"hello"}))
    assert "stranger.tgz is not an archive of this data set" in error_line(
        prepare("Paris", "--archive", stranger)
    )


def test_half_of_the_archives_is_not_a_data_set(server, prepare, tmp_path):
    line = error_line(prepare("Paris", "--archive", server / "paris_1.tgz"))
    assert "1 of the 2 files" in line
    assert not (tmp_path / "data" / "Paris" / "jpg").exists()


def test_a_missing_file_of_the_server_is_reported_with_what_to_do(server, prepare, tmp_path):
    (server / "gt_files_170407.tgz").unlink()
    line = error_line(prepare("Oxford"))
    assert "gt_files_170407.tgz" in line
    assert "--archive" in line
    assert len(list((tmp_path / "data" / "Oxford" / "jpg").iterdir())) == 2  # the finished part is kept


def test_a_failed_download_leaves_no_empty_folders(server, prepare, tmp_path):
    for path in server.iterdir():
        path.unlink()
    for what in ("Oxford", "ROxford", "compute_ap"):
        assert "404" in error_line(prepare(what))
    assert not (tmp_path / "data").exists()
    assert "no data set at" in error_line(prepare("verify", "Oxford"))
    assert "no folder of distractors" in error_line(prepare("Oxford", "--distractors", tmp_path / "none"))


@pytest.mark.parametrize("name", ["oxbuild_images.tgz", "gnd_roxford5k.pkl", "compute_ap.cpp"])
def test_a_web_page_instead_of_a_file_is_not_kept(server, prepare, name):
    what = "compute_ap" if name.endswith("cpp") else "ROxford"
    content = (server / name).read_bytes() if what == "ROxford" else b"int main() {}"
    (server / name).write_bytes(b"<html>we have moved</html>")
    line = error_line(prepare(what))
    if "no C++ compiler" in line:
        pytest.skip("no C++ compiler")
    assert name in line
    (server / name).write_bytes(content)
    assert prepare(what)[0] == 0


def test_what_the_user_brought_is_never_removed(server, prepare, tmp_path):
    downloads = tmp_path / "data" / "Oxford" / "downloads"
    downloads.mkdir(parents=True)
    for name in ("oxbuild_images.tgz", "gt_files_170407.tgz"):
        (server / name).rename(downloads / name)
    (downloads / "oxbuild_images.tgz.bak").touch()
    given = sorted(downloads.glob("*.tgz"))
    assert "--max-files" in error_line(prepare("Oxford", "--max-files", 1))
    assert prepare("Oxford", "--archive", *given)[0] == 0
    assert len(list(downloads.iterdir())) == 3

    program = tmp_path / "data" / "compute_ap" / "compute_ap.cpp"
    program.parent.mkdir()
    program.write_text("no program")
    error_line(prepare("compute_ap"))
    assert program.read_text() == "no program"
    (tmp_path / "weights" / "unpacked").mkdir(parents=True)
    (tmp_path / "weights" / "unpacked" / "mine").touch()
    for name in weights_files(tmp_path / "made"):
        (tmp_path / "made" / name).rename(tmp_path / "weights" / name)
    assert prepare("weights")[0] == 0
    assert (tmp_path / "weights" / "unpacked" / "mine").exists()


def test_an_incomplete_folder_is_not_taken_for_done(server, prepare, tmp_path, caplog):
    (tmp_path / "data" / "Oxford" / "jpg").mkdir(parents=True)
    (tmp_path / "data" / "Oxford" / "jpg" / "oxford_000001.jpg").touch()
    assert "has 1 of 2 files: move it away" in error_line(prepare("Oxford"))
    (tmp_path / "data" / "Oxford" / "jpg" / "all_souls_000000.jpg").touch()
    assert prepare("Oxford", "--archive", server / "oxbuild_images.tgz")[0] == 0
    assert "exists already, and oxbuild_images.tgz was not unpacked" in caplog.text


def test_the_labels_of_one_set_are_not_taken_for_anothers(server, prepare):
    line = error_line(prepare("Oxford", "--archive", server / "paris_120310.tgz"))
    assert "is not an archive of this data set" in line


def test_several_names_are_checked_before_any_is_prepared(prepare, tmp_path):
    assert "'Pariss' is unknown" in error_line(prepare("Mini", "Pariss"))
    assert not (tmp_path / "data").exists()
    assert "one data set at a time" in error_line(prepare("Oxford", "Paris", "--archive", "x.tgz"))
    assert "none of Oxford" in error_line(prepare("verify"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"ILSVRC2012_val_00000001.JPEG 3\n", "1 labels for 2 images"),
        (b"<html>not labels</html>\n", "not valid"),
        (b"ILSVRC2012_val_00000001.JPEG \xe9\n", "not valid"),
    ],
)
def test_invalid_labels_of_imagenet_are_reported_and_replaced_later(prepare, tmp_path, text, message):
    images = {f"ILSVRC2012_val_{number:08d}.JPEG": image(number) for number in (1, 2)}
    wnid = read_wnids()[0]
    (tmp_path / "t").write_bytes(archive({f"{wnid}.tar": archive({f"{wnid}_0.JPEG": image()}, "w")}, "w"))
    (tmp_path / "v").write_bytes(archive(images, "w"))
    (tmp_path / "l").write_bytes(archive({"val.txt": text}))
    given = [tmp_path / name for name in "tvl"]
    assert message in error_line(prepare("ImageNet", "--archive", *given))
    (tmp_path / "l").write_bytes(archive({"val.txt": b"".join(b"%s 7\n" % name.encode() for name in images)}))
    assert prepare("ImageNet", "--archive", *given)[0] == 0
    assert prepare("verify", "ImageNet")[0] == 0
    (tmp_path / "data" / "ImageNet" / "val" / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 3\n")
    status, out, _ = prepare("verify", "ImageNet")
    assert status == 2
    assert "val.txt lacks a line for" in out


def test_distractors_that_would_have_the_same_name_are_reported(server, prepare, tmp_path):
    for name in ("a/b_c.jpg", "a_b/c.jpg", "a/._x.jpg", ".hidden/y.jpg"):
        (tmp_path / "flickr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flickr" / name).write_bytes(image())
    assert "would have the same name" in error_line(prepare("Oxford", "--distractors", tmp_path / "flickr"))
    (tmp_path / "flickr" / "a_b" / "c.jpg").rename(tmp_path / "flickr" / "a_b" / "oxford_000001.jpg")
    assert prepare("Oxford", "--distractors", tmp_path / "flickr")[0] == 0
    assert list(read_dataset(tmp_path / "data" / "Oxford105k").images) == [
        *("a_b_c", "a_b_oxford_000001", "all_souls_000000", "oxford_000001")
    ]


def test_verify_ignores_images_published_unreadable(prepare, tmp_path):
    folder = tmp_path / "data" / "Mine" / "jpg"
    folder.mkdir(parents=True)
    (folder / "paris_louvre_000136.jpg").touch()
    (folder / "x.jpg").write_bytes(image())
    assert prepare("verify", "Mine")[0] == 0
    (folder / "y.jpg").touch()
    assert "has 1 problems" in error_line(prepare("verify", "Mine"))


def test_a_hostile_archive_leaves_nothing(server, prepare, tmp_path):
    hostile = tmp_path / "hostile.tgz"
    hostile.write_bytes(archive({**OXFORD, "../../oxford_000009.jpg": b"out"}))
    assert "hostile.tgz" in error_line(prepare("Oxford", "--archive", hostile))
    assert not (tmp_path / "data" / "Oxford" / "jpg").exists()
    assert not list(tmp_path.rglob("oxford_000009.jpg"))
    line = error_line(prepare("Oxford", "--archive", server / "oxbuild_images.tgz", "--max-files", 1))
    assert "--max-files" in line


def test_revisited_oxford_shares_oxfords_images_and_keeps_its_labels_as_json(server, prepare, tmp_path):
    prepare("Oxford")
    (server / "oxbuild_images.tgz").unlink()
    status, _, err = prepare("ROxford")
    assert status == 0, err
    folders = [tmp_path / "data" / name / "jpg" / "oxford_000001.jpg" for name in ("Oxford", "ROxford")]
    assert folders[0].samefile(folders[1])
    saved = json.loads((tmp_path / "data" / "ROxford" / "gnd_roxford5k.json").read_text())
    assert saved["gnd"] == [{"bbx": [1, 1, 6, 5], "easy": [1], "hard": [], "junk": [0]}]
    assert prepare("verify", "ROxford")[0] == 0


def test_distractors_make_a_separate_data_set(server, prepare, tmp_path):
    for number in range(3):
        path = tmp_path / "flickr" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number))
    assert prepare("Oxford", "--distractors", tmp_path / "flickr")[0] == 0
    data = read_dataset(tmp_path / "data" / "Oxford105k")
    assert list(data.images) == ["0_0", "0_2", "1_1", "all_souls_000000", "oxford_000001"]
    assert data.images["0_2"].samefile(tmp_path / "flickr" / "0" / "2.jpg")
    assert [query.name for query in data.queries] == ["all_souls_1"]
    os.mkfifo(tmp_path / "flickr" / "pipe.jpg")
    (tmp_path / "flickr" / "0" / "2_thumb.jpg").write_bytes(image(2))
    shutil.rmtree(tmp_path / "data" / "Oxford105k")
    assert prepare("Oxford", "--distractors", tmp_path / "flickr")[0] == 0
    assert read_dataset(tmp_path / "data" / "Oxford105k").images == data.images
    (tmp_path / "empty").mkdir()
    assert "no images in" in error_line(prepare("Paris", "--distractors", tmp_path / "empty"))
    assert "not to Mini" in error_line(prepare("Mini", "--distractors", tmp_path / "flickr"))


def test_imagenets_nested_archives_become_folders_of_classes(prepare, tmp_path):
    wnids = read_wnids()
    inner = {
        f"{wnid}.tar": archive({f"{wnid}_{number}.JPEG": image(number) for number in range(2)}, "w")
        for wnid in wnids[:2]
    }
    validation = {f"ILSVRC2012_val_{number:08d}.JPEG": image(number) for number in (1, 2, 3)}
    # The kit numbers classes in another order; synsets with children are not classes.
    synsets = np.zeros(3, [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)])
    synsets["ILSVRC2012_ID"], synsets["WNID"] = [1, 2, 1001], [wnids[7], wnids[3], "n00001740"]
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": (tmp_path / "meta.mat").read_bytes(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n",
        "ILSVRC2012_devkit_t12/readme.txt": b"hello",
    }
    given = []
    for name, content in (("a", archive(validation, "w")), ("b", archive(kit)), ("c", archive(inner, "w"))):
        given.append(tmp_path / name)
        given[-1].write_bytes(content)
    status, _, err = prepare("ImageNet", "--archive", *given)
    assert status == 0, err
    folder = tmp_path / "data" / "ImageNet"
    training = read_training_images(folder, 1000)
    assert [path.name for path in training.paths] == [
        f"{wnid}_{number}.JPEG" for wnid in wnids[:2] for number in range(2)
    ]
    assert training.paths[0].parent.name == wnids[0]
    assert (folder / "val" / "val.txt").read_text().splitlines()[0] == "ILSVRC2012_val_00000001.JPEG 3"
    assert read_validation_images(folder, 1000, 10, 0).classes.tolist() == [3, 7, 3]


def test_what_cannot_be_downloaded_says_where_to_ask(prepare):
    line = error_line(prepare("ImageNet"))
    assert "ILSVRC2012_img_train.tar" in line
    assert "image-net.org" in line
    assert "--archive" in error_line(prepare("Landmark"))
    assert "'Berlin' is unknown" in error_line(prepare("Berlin"))


def test_landmarks_come_from_any_archives(prepare, tmp_path):
    (tmp_path / "a.tgz").write_bytes(
        archive(
            {
                "one/x.jpg": image(1),
                "two/x.jpg": image(2),
                "two/y.JP2": image(2),
                "two/@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg": image(2),
                "two/x_thumb.jpg": image(2),
                "two/.x.jpg": image(2),
            }
        )
    )
    assert prepare("Landmark", "--archive", tmp_path / "a.tgz")[0] == 0
    folder = tmp_path / "data" / "Landmark" / "train" / "data"
    assert sorted(path.name for path in folder.iterdir()) == ["one_x.jpg", "two_x.jpg", "two_y.JP2"]


def weights_files(folder):
    """Write the authors' four files with other numbers, and return their bytes by name."""
    network = BACKBONES["resnet101_caffe"].features()
    folder.mkdir()
    torch.save(recipe_state_dict(network, 2), folder / "resnet101_caffeProto.pth")
    torch.save(
        ContextAwareRegionalAttention(2048).state_dict(),
        folder / "ContextAwareRegionalAttention_weights.pth",
    )
    np.save(folder / "pca_components.npy", np.eye(3, 2048, dtype=np.float32))
    np.save(folder / "pca_mean.npy", np.zeros(2048, np.float32))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_weights_are_unpacked_and_reported(prepare, tmp_path):
    files = weights_files(tmp_path / "made")
    (tmp_path / "w.tar").write_bytes(archive({f"weights/{name}": files[name] for name in files}, "w"))
    (tmp_path / "weights").mkdir()
    np.save(tmp_path / "weights" / "pca_mean.npy", -np.ones(2048, np.float32))  # the file of the user is kept
    status, out, err = prepare("weights", "--archive", tmp_path / "w.tar")
    assert status == 0, err
    assert sorted(tree(tmp_path / "weights")) == sorted(files)
    assert np.load(tmp_path / "weights" / "pca_mean.npy")[0] == -1
    assert "(3, 2048); sha256 " in out
    done = subprocess.run(
        ["sha256sum", tmp_path / "weights" / "pca_components.npy"], capture_output=True, text=True
    )
    assert done.stdout.split()[0] in out

    (tmp_path / "weights" / "pca_mean.npy").unlink()
    (tmp_path / "half.tar").write_bytes(archive({"pca_components.npy": b""}, "w"))
    assert "it lacks pca_mean.npy" in error_line(prepare("weights", "--archive", tmp_path / "half.tar"))


def test_verify_lists_what_is_wrong(server, prepare, tmp_path):
    prepare("Oxford")
    status, out, _ = prepare("verify", tmp_path / "data" / "Oxford")
    assert status == 2  # Oxford has more images
    assert "2 images instead of 5063" in out
    data = (tmp_path / "data" / "Oxford").rename(tmp_path / "data" / "Mine")
    status, out, err = prepare("verify", "Mine")
    assert (status, out.splitlines()[-1]) == (0, f"{data} is complete"), err

    (data / "jpg" / "broken.jpg").write_bytes(image()[:200])
    (data / "lab" / "all_souls_1_junk.txt").write_text("gone\n")
    (data / "lab" / "all_souls_1_query.txt").write_text("all_souls_000000 1 1 16 5\n")
    result = prepare("verify", "Mine")
    assert "has 3 problems" in error_line(result)
    problems = result[1].splitlines()[1:]
    assert problems[0] == "the labels name gone, which is not an image of the database"
    assert problems[1] == "query all_souls_1: its box 1 1 16 5 is empty or exceeds its image, 8 x 6"
    assert problems[2].startswith(f"{data / 'jpg' / 'broken.jpg'} cannot be decoded")


def test_the_program_is_compiled_with_the_header_that_it_lacks(server, prepare, tmp_path):
    (server / "compute_ap.cpp").write_text(
        '#include <iostream>\nint main(int, char** v) { std::cout << atoi("7"); }\n'
    )
    status, _, err = prepare("compute_ap")
    if "no C++ compiler" in err:
        pytest.skip("no C++ compiler")
    assert status == 0, err
    done = subprocess.run([tmp_path / "data" / "compute_ap" / "compute_ap"], capture_output=True, text=True)
    assert done.stdout == "7"


def test_a_run_killed_at_any_step_is_finished_by_the_next(server, tmp_path):
    """The run is killed before ten of its changes of folders, from the first to the last."""
    (tmp_path / "flickr").mkdir()
    (tmp_path / "flickr" / "x.jpg").write_bytes(image(9))

    def prepare_into(folder):
        Prepare_Datasets.main("Oxford", datasets_dir=folder, distractors=tmp_path / "flickr")

    assert_kills_are_made_good(prepare_into, tmp_path, least_steps=20)
