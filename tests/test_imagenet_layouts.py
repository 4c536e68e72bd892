"""Layouts of ImageNet that are read in place: of PyTorch's examples, of Kaggle, and val.txt with folders."""

import pytest
from conftest import draw_image

from utils.data.imagenet import read_training_images, read_wnids
from utils.data.imagenet_validation import read_validation_images
from utils.errors import UserError
from utils.prepare.verify import verify

FIRST, SECOND, LAST = (read_wnids()[index] for index in (0, 1, 999))


def draw(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_image(folder / name)


def labels(images):
    return {path.name: index for path, index in zip(images.paths, images.classes.tolist(), strict=True)}


def read(folder, classes=1000):
    return labels(read_training_images(folder, classes)), labels(
        read_validation_images(folder, classes, 100, 0)
    )


def test_folders_of_classes_as_in_pytorchs_examples(tmp_path):
    draw(tmp_path / "train", f"{FIRST}/a.JPEG", f"{LAST}/b.JPEG", f"{SECOND}/c.JPEG")
    draw(tmp_path / "val", f"{LAST}/v1.JPEG", f"{SECOND}/v2.JPEG")
    assert read(tmp_path) == ({"a.JPEG": 0, "c.JPEG": 1, "b.JPEG": 999}, {"v2.JPEG": 1, "v1.JPEG": 999})


def test_images_beside_the_folders_of_classes_are_left_out_with_a_note(tmp_path, caplog):
    draw(tmp_path / "train", f"{FIRST}/a.JPEG", "b.JPEG")
    draw(tmp_path / "val", f"{FIRST}/v1.JPEG", "v2.JPEG", "v3.JPEG")
    assert read(tmp_path) == ({"a.JPEG": 0}, {"v1.JPEG": 0})
    assert [record.message for record in caplog.records][:2] == [
        f"note: left out 1 images of {tmp_path / 'train'} that have no class",
        f"note: left out 2 images of {tmp_path / 'val'} that have no class",
    ]


def test_verify_checks_the_classes_of_imagenet_in_a_folder_of_any_name(tmp_path, capsys):
    draw(tmp_path / "train", f"{FIRST}/a.JPEG")
    draw(tmp_path / "val", f"{FIRST}/v.JPEG")
    verify(tmp_path)
    draw(tmp_path / "val", "n0/v.JPEG")
    with pytest.raises(UserError, match="has 1 problems"):
        verify(tmp_path)
    assert "1 folders whose classes are unknown (first: n0)" in capsys.readouterr().out


def test_the_unpacked_archive_of_kaggle(tmp_path):
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    names = [f"ILSVRC2012_val_0000000{number}" for number in (1, 2)]
    draw(root, f"train/{SECOND}/a.JPEG", *(f"val/{name}.JPEG" for name in names), "test/t.JPEG")
    (tmp_path / "ILSVRC" / "ImageSets" / "CLS-LOC").mkdir(parents=True)
    (tmp_path / "ILSVRC" / "ImageSets" / "CLS-LOC" / "val.txt").write_text(f"{names[0]} 1\n{names[1]} 2\n")
    rows = f"{names[1]},{LAST} 1 2 30 40 \n{names[0]},{FIRST} 1 2 3 4 {FIRST} 5 6 7 8 \n"
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + rows)
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{FIRST} tench, Tinca tinca\n")
    expected = {f"{names[0]}.JPEG": 0, f"{names[1]}.JPEG": 999}
    assert read(tmp_path) == ({"a.JPEG": 1}, expected)


@pytest.mark.parametrize(
    ("images", "lines"),
    [
        (["v1.JPEG", "v2.JPEG"], ["val/v1.JPEG 5", "val/v2.JPEG 6"]),
        (["v1.JPEG", "v2.JPEG"], ["/home/someone/imagenet/val/v1.JPEG 5", "./v2.JPEG 6"]),
        ([f"{LAST}/v1.JPEG", f"{FIRST}/v2.JPEG"], ["v1.JPEG 5", "v2.JPEG 6"]),
        ([f"{LAST}/v1.JPEG", f"{FIRST}/v2.JPEG"], [f"val/{LAST}/v1.JPEG 5", f"{FIRST}/v2.JPEG 6"]),
    ],
)
@pytest.mark.parametrize("listing", ["val/val.txt", "val.txt"])
@pytest.mark.parametrize("data", ["val", "val/data"])
def test_names_in_val_txt_have_any_folder_in_front(tmp_path, images, lines, listing, data):
    draw(tmp_path / data, *images)
    (tmp_path / listing).write_text("\n".join(lines))
    assert labels(read_validation_images(tmp_path, 1000, 100, 0)) == {"v1.JPEG": 5, "v2.JPEG": 6}


def test_images_of_one_name_are_distinguished_by_their_folders(tmp_path):
    draw(tmp_path / "val", "a/1.JPEG", "b/1.JPEG")
    listing = tmp_path / "val" / "val.txt"
    listing.write_text("a/1.JPEG 5\nval/b/1.JPEG 6\n")
    assert read_validation_images(tmp_path, 1000, 100, 0).classes.tolist() == [5, 6]
    listing.write_text("1.JPEG 5\n")
    with pytest.raises(UserError, match=r"lists 1 files that are not in .* \(first: 1\.JPEG\)"):
        read_validation_images(tmp_path, 1000, 100, 0)
    listing.write_text("a/1.JPEG 5\nval/a/1.JPEG 6\nb/1.JPEG 6\n")
    with pytest.raises(UserError, match=r"two labels for .*a/1\.JPEG"):
        read_validation_images(tmp_path, 1000, 100, 0)


def test_classes_of_another_data_set_are_those_of_the_training_folders(tmp_path):
    draw(tmp_path / "train", "bird/a.JPEG", "cat/b.JPEG", "dog/c.JPEG")
    draw(tmp_path / "val", "dog/d.JPEG")
    assert read(tmp_path, classes=3)[1] == {"d.JPEG": 2}
    draw(tmp_path / "val", "wolf/e.JPEG")
    with pytest.raises(UserError, match=r"1 folders whose classes are unknown \(first: wolf\)"):
        read(tmp_path, classes=3)


def test_the_layout_of_the_project_is_preferred(tmp_path):
    draw(tmp_path, f"train/data/{SECOND}/a.JPEG", f"train/{FIRST}/b.JPEG", "val/data/v.JPEG", "val/w.JPEG")
    (tmp_path / "val" / "val.txt").write_text("v.JPEG 7\n")
    assert read(tmp_path) == ({"a.JPEG": 1}, {"v.JPEG": 7})
