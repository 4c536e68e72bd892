"""Archives given by the user are recognised by their contents, and unpacked completely or not at all."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import Prepare_Datasets
from utils.data.imagenet import read_training_images, read_wnids
from utils.data.imagenet_validation import read_validation_images
from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES
from utils.prepare.recipes import RECIPES
from utils.program.run_command import run_command


@pytest.fixture
def prepare(tmp_path, capsys):
    """A function that runs the command line in this process and returns status, output and errors."""

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
    files["val.txt"] = f"{names[0]} 2\nval/{names[1]} 999\n".encode()
    given = WRITERS[kind](tmp_path / f"imagenet.{kind}", files)
    status, _, err = prepare("ImageNet", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 0, err
    folder = tmp_path / "data" / "ImageNet"
    assert [path.name for path in read_training_images(folder, 1000).paths] == [f"{wnids[2]}_5.JPEG"]
    validation = read_validation_images(folder, 1000, 10, 0)
    assert sorted(validation.classes.tolist()) == [2, 999]
    for number, name in enumerate(names):
        assert (folder / "val" / "data" / name).read_bytes() == image_bytes(number)


LABEL_TABLE = (
    "ImageId,PredictionString\n"
    "ILSVRC2012_val_00000002,n15075141 1 2 30 40 \n"  # the last of the sorted wnids
    "ILSVRC2012_val_00000001,n01443537 240 170 260 240 n01443537 1 2 3 4 \n"  # the second
)


def write_kaggle(path, table=None):
    """Write an archive in Kaggle's layout, whose val.txt is a list of the images with their numbers."""
    root = "ILSVRC/Data/CLS-LOC"
    files = {f"{root}/train/n01440764/n01440764_18.JPEG": image_bytes()}
    files |= {f"{root}/val/ILSVRC2012_val_0000000{number}.JPEG": image_bytes(number) for number in (1, 2)}
    files |= {f"{root}/test/ILSVRC2012_test_00000001.JPEG": image_bytes()}
    files |= {"ILSVRC/ImageSets/CLS-LOC/val.txt": b"ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n"}
    files |= {"LOC_synset_mapping.txt": b"n01440764 tench, Tinca tinca\n"}
    return write_zip(path, files if table is None else files | {"LOC_val_solution.csv": table.encode()})


@pytest.mark.parametrize("beside", [False, True])
def test_kaggles_archive_is_laid_out_with_its_labels(prepare, tmp_path, beside):
    given = write_kaggle(tmp_path / "kaggle.zip", None if beside else LABEL_TABLE)
    if beside:
        (tmp_path / "LOC_val_solution.csv").write_text(LABEL_TABLE)
    status, _, err = prepare("ImageNet", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 0, err
    folder = tmp_path / "data" / "ImageNet"
    assert read_training_images(folder, 1000).classes.tolist() == [0]
    validation = read_validation_images(folder, 1000, 2, 0)
    assert [path.name for path in validation.paths] == [
        "ILSVRC2012_val_00000001.JPEG",
        "ILSVRC2012_val_00000002.JPEG",
    ]
    assert validation.classes.tolist() == [1, 999]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("ImageId,", "Image,", 1),
        (LABEL_TABLE, "", 1),
        ("n15075141 1 2 30 40 ", "", 2),
        ("n15075141", "n99999999", 2),
        (",n15075141", "", 2),
        ("val_00000001", "val_1", 3),
        ("val_00000001", "val_00000002", 3),
        ("n15075141", "n" * 200_000, 2),
    ],
)
def test_an_invalid_table_of_kaggle_is_one_line_that_names_the_line(prepare, tmp_path, old, new, line):
    assert old in LABEL_TABLE
    given = write_kaggle(tmp_path / "kaggle.zip", LABEL_TABLE.replace(old, new))
    status, _, err = prepare("ImageNet", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 2
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: LOC_val_solution.csv, line {line}: ")
    good = write_kaggle(tmp_path / "good.zip", LABEL_TABLE)
    assert prepare("ImageNet", "--archive", good, "--datasets-dir", tmp_path / "data")[0] == 0


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_is_recognised_by_an_image_behind_thousands_of_other_files(prepare, tmp_path, kind):
    files = {f"info/{number}.xml": b"x" for number in range(2100)} | {"images/a.jpg": image_bytes()}
    given = WRITERS[kind](tmp_path / f"photos.{kind}", files)
    status, _, err = prepare("Landmark", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 0, err
    written = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert written == [tmp_path / "data" / "Landmark" / "train" / "data" / "images_a.jpg"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_hostile_archive_leaves_no_folder(prepare, tmp_path, kind):
    files = {"a.jpg": image_bytes(), "../../b.jpg": image_bytes(1)}
    given = WRITERS[kind](tmp_path / f"hostile.{kind}", files)
    status, _, err = prepare("Landmark", "--archive", given, "--datasets-dir", tmp_path / "data")
    assert status == 2
    assert "is unsafe" in err
    assert list(tmp_path.iterdir()) == [given]

    (tmp_path / "data").mkdir()  # an existing folder of the user is kept
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
        assert "error: no name is given: give one or more of Oxford" in err
    assert "one data set at a time" in prepare("Oxford", "--archive", tmp_path / "x.zip", "Paris")[2]
