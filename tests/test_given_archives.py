"""Archives that the user gives: recognised by all that they hold, and laid out completely or not at all."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import Prepare_Datasets
from utils.data.imagenet import read_training_images, read_validation_images, read_wnids
from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES
from utils.errors import run_command
from utils.prepare.recipes import RECIPES


@pytest.fixture
def prepare(tmp_path, capsys):
    """Run the command line in this process: status, standard output, standard error."""

    def run(*words):
        words = [str(word) for word in words]
        status = run_command(lambda: Prepare_Datasets.command_line(words))
        return status, *capsys.readouterr()

    return run


def image_bytes(seed=0):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return path


WRITERS = {
    "tar": write_tar,
    "tgz": lambda path, files: write_tar(path, files, "w:gz"),
    "zip": write_zip,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_one_archive_fills_all_the_folders_whose_files_it_holds(prepare, tmp_path, kind):
    wnids = read_wnids()
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2)]
    files = {f"train/{wnids[2]}/{wnids[2]}_5.JPEG": image_bytes(5)}
    files |= {f"val/{name}": image_bytes(number) for number, name in enumerate(names)}
    files["val.txt"] = f"{names[0]} 2\n{names[1]} 999\n".encode()
    given = WRITERS[kind](tmp_path / f"imagenet.{kind}", files)
    status, _, err = prepare("ImageNet", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 0, err
    folder = tmp_path / "data" / "ImageNet"
    assert [path.name for path in read_training_images(folder, 1000).paths] == [f"{wnids[2]}_5.JPEG"]
    validation = read_validation_images(folder, 1000, 10, 0)
    assert sorted(validation.classes.tolist()) == [2, 999]
    for number, name in enumerate(names):
        assert (folder / "val" / "data" / name).read_bytes() == image_bytes(number)


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_is_recognised_by_an_image_behind_thousands_of_other_files(prepare, tmp_path, kind):
    files = {f"info/{number}.xml": b"x" for number in range(2100)} | {"images/a.jpg": image_bytes()}
    given = WRITERS[kind](tmp_path / f"photos.{kind}", files)
    status, _, err = prepare("Landmark", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 0, err
    found = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert found == [tmp_path / "data" / "Landmark" / "train" / "data" / "images_a.jpg"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_hostile_archive_leaves_no_folder(prepare, tmp_path, kind):
    files = {"a.jpg": image_bytes(), "../../b.jpg": image_bytes(1)}
    given = WRITERS[kind](tmp_path / f"hostile.{kind}", files)
    status, _, err = prepare("Landmark", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 2
    assert "is unsafe" in err
    assert list(tmp_path.iterdir()) == [given]

    (tmp_path / "data").mkdir()  # the user's own stays
    prepare("Landmark", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_paris_is_complete_without_the_images_that_no_evaluation_reads(prepare, tmp_path):
    parts = {part.folder.name: part for part in RECIPES["Paris"]}
    folder = tmp_path / "data" / "Paris"
    for name in parts:
        (folder / name).mkdir(parents=True)
    for number in range(220):
        (folder / "lab" / f"{number}.txt").touch()
    for number in range(6392):
        (folder / "jpg" / f"paris_eiffel_{number:06d}.jpg").touch()
    status, _, err = prepare("Paris", "--datasets-dir", tmp_path / "data")
    assert status == 0, err

    missing = folder / "jpg" / "paris_eiffel_000000.jpg"
    missing.unlink()
    for name in CORRUPT_PARIS_IMAGES:
        (folder / "jpg" / f"{name}.jpg").touch()
    assert "has 6391 of 6392 files" in prepare("Paris", "--datasets-dir", tmp_path / "data")[2]
    missing.touch()
    assert len(list((folder / "jpg").iterdir())) == 6412  # as published
    assert prepare("Paris", "--datasets-dir", tmp_path / "data")[0] == 0


def test_options_and_names_may_come_in_any_order(prepare, tmp_path):
    given = write_zip(tmp_path / "photos.zip", {"a.jpg": image_bytes()})
    for number, words in enumerate(
        [
            ["--datasets-dir", "DATA", "--archive", given, "Landmark"],
            ["--archive", given, "Landmark", "--datasets-dir", "DATA"],
            ["Landmark", "--datasets-dir", "DATA", "--archive", given],
            ["--insecure-host", "example.org", "Landmark", "--archive", given, "--datasets-dir", "DATA"],
        ]
    ):
        data = tmp_path / f"data{number}"
        status, _, err = prepare(*[data if word == "DATA" else word for word in words])
        assert status == 0, err
        assert (data / "Landmark" / "train" / "data" / "a.jpg").read_bytes() == image_bytes()
        for words in (
            ["verify", "--datasets-dir", data, "Landmark"],
            ["--datasets-dir", data, "verify", "Landmark"],
            ["verify", "Landmark", "--datasets-dir", data],
            ["verify", "--datasets-dir", data],
        ):
            status, out, err = prepare(*words)
            assert status == 0, err
            assert out.splitlines()[0] == f"{data / 'Landmark'}: 1 images"


def test_without_a_name_the_error_says_so(prepare, tmp_path):
    for words in ([], ["--archive", tmp_path / "x.zip"]):
        status, _, err = prepare(*words)
        assert status == 2
        assert "error: name what to get: Oxford" in err
    assert "one data set at a time" in prepare("Oxford", "--archive", tmp_path / "x.zip", "Paris")[2]
