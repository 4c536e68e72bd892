import os
import shutil

import numpy as np
import pytest
from conftest import draw_image

from utils.data.labelled_images import LabelledImages, read_classified_images, read_labels
from utils.errors import UserError


def draw_classes(folder, **counts):
    """Draw a folder per class with given numbers of images."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            draw_image(folder / label / f"{number}.png", number)
    return folder


def names(images, root):
    return [str(path.relative_to(root)) for path in images.paths]


def test_the_classes_are_the_folders_and_images_lie_anywhere_below(tmp_path, caplog):
    draw_classes(tmp_path, cat=1, **{"a dog": 1, "@eaDir": 1})
    (tmp_path / "cat" / "of 2020" / "may").mkdir(parents=True)
    draw_image(tmp_path / "cat" / "of 2020" / "may" / "x.jpg")
    (tmp_path / "cat" / "of 2020" / "may" / "x.jpg").rename(tmp_path / "cat" / "of 2020" / "may" / "x")
    draw_image(tmp_path / "cat" / "y.png")
    (tmp_path / "cat" / "y.png").rename(tmp_path / "cat" / "y.JFIF")
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    draw_image(tmp_path / "cover.png")
    labels = read_labels(tmp_path)
    assert {
        label: [str(path.relative_to(tmp_path)) for path in paths] for label, paths in labels.items()
    } == {
        "a dog": ["a dog/0.png"],
        "cat": ["cat/0.png", "cat/of 2020/may/x", "cat/y.JFIF"],
    }
    assert list(labels) == ["a dog", "cat"]
    assert f"left out 1 images of {tmp_path} that have no class" in caplog.text


def test_a_list_gives_the_same_labels_as_folders(tmp_path):
    draw_classes(tmp_path, cat=2, dog=1)
    (tmp_path / "list.txt").write_text("dog/0.png dog\r\n\n cat/1.png\tcat\ncat/0.png cat\ncat/0.png cat\n")
    cats, dog = [tmp_path / "cat" / name for name in ("0.png", "1.png")], tmp_path / "dog" / "0.png"
    assert read_labels(tmp_path / "list.txt") == read_labels(tmp_path) == {"cat": cats, "dog": [dog]}


def test_paths_of_a_list_have_spaces_and_are_relative_to_it_or_absolute(tmp_path, monkeypatch):
    draw_classes(tmp_path / "images", **{"my dog": 1, "cat": 1})
    (tmp_path / "lists").mkdir()
    cat = tmp_path / "images" / "cat" / "0.png"
    (tmp_path / "lists" / "all.txt").write_text(f"../images/my dog/0.png dog\n{cat} 7\n")
    monkeypatch.chdir("/")
    labels = read_labels(tmp_path / "lists" / "all.txt")
    assert labels == {"7": [cat], "dog": [tmp_path / "lists" / ".." / "images" / "my dog" / "0.png"]}


def test_a_pipe_in_a_list_is_left_to_the_limit_of_unreadable_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.txt").write_text("pipe.png cat\n")
    assert read_labels(tmp_path / "list.txt") == {"cat": [tmp_path / "pipe.png"]}


def test_the_split_takes_its_share_of_each_class_and_leaves_an_image_in_each_part(tmp_path):
    draw_classes(tmp_path, ten=10, five=5, two=2, one=1)
    images = read_classified_images(tmp_path, share=0.2)
    assert images.classes == ["five", "one", "ten", "two"]
    assert np.bincount(images.training.classes, minlength=4).tolist() == [4, 1, 8, 1]
    assert np.bincount(images.validation.classes, minlength=4).tolist() == [1, 0, 2, 1]
    both = names(images.training, tmp_path) + names(images.validation, tmp_path)
    assert sorted(both) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*"))
    for path, index in zip(images.training.paths, images.training.classes, strict=True):
        assert path.parent.name == images.classes[index]
    most = read_classified_images(tmp_path, share=0.99)
    assert np.bincount(most.training.classes, minlength=4).tolist() == [1, 1, 1, 1]


def test_the_split_is_a_draw_by_the_seed(tmp_path):
    draw_classes(tmp_path, cat=20, dog=20)
    first = read_classified_images(tmp_path, seed=3)
    again = read_classified_images(tmp_path, seed=3)
    other = read_classified_images(tmp_path, seed=4)
    assert first.split == again.split == "seed 3, share 0.2"
    assert first.summary == again.summary != other.summary
    assert first.validation.paths == again.validation.paths != other.validation.paths
    cats, dogs = (
        [path.name for path in first.validation.paths if path.parent.name == label]
        for label in ("cat", "dog")
    )
    assert len(cats) == len(dogs) == 4
    assert cats != dogs  # each class is drawn separately


def test_train_and_val_folders_are_the_two_parts(tmp_path, caplog):
    draw_classes(tmp_path / "train", cat=2, dog=1)
    draw_classes(tmp_path / "val", dog=2)
    draw_classes(tmp_path / "test", dog=1)
    images = read_classified_images(tmp_path)
    assert names(images.training, tmp_path) == ["train/cat/0.png", "train/cat/1.png", "train/dog/0.png"]
    assert (images.training.classes.tolist(), images.validation.classes.tolist()) == ([0, 0, 1], [1, 1])
    assert (images.classes, images.split) == (["cat", "dog"], "train and val")
    assert f"left out test of {tmp_path}" in caplog.text
    apart = read_classified_images(tmp_path / "train", tmp_path / "val")
    assert apart.split == str(tmp_path / "val")
    assert apart.validation.paths == images.validation.paths
    with pytest.raises(UserError, match=r"leave out --validation, or name .*train by --images"):
        read_classified_images(tmp_path, tmp_path / "val")


def test_classes_called_train_are_classes(tmp_path):
    draw_classes(tmp_path, train=2, tram=2)
    assert read_classified_images(tmp_path).classes == ["train", "tram"]


def test_the_class_indices_are_those_of_given_classes(tmp_path):
    draw_classes(tmp_path, cat=2, dog=2)
    images = read_classified_images(tmp_path, classes=["dog", "bird", "cat"])
    assert images.training.classes.tolist() == [2, 0]
    with pytest.raises(UserError, match=r"has 1 labels .* among the 2 classes .* \(first: dog\)"):
        read_classified_images(tmp_path, classes=["bird", "cat"])


def test_the_summary_changes_with_any_label_but_not_with_the_path_of_the_folder(tmp_path):
    draw_classes(tmp_path / "a", cat=3, dog=3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    summary = read_classified_images(tmp_path / "a").summary
    assert summary.startswith("4 and 2 images of 2 classes, digest ")
    assert read_classified_images(tmp_path / "b").summary == summary
    (tmp_path / "b" / "cat" / "0.png").rename(tmp_path / "b" / "dog" / "9.png")
    (tmp_path / "b" / "dog" / "0.png").rename(tmp_path / "b" / "cat" / "0.png")
    assert read_classified_images(tmp_path / "b").summary != summary


def one_class(folder):
    draw_classes(folder, cat=2)


def empty_classes(folder):
    draw_classes(folder, cat=2, dog=0, bird=2, cow=0)


def no_folders(folder):
    folder.mkdir()
    draw_image(folder / "0.png")


def single_images(folder):
    draw_classes(folder, cat=1, dog=1)


ERRORS = {
    "has one class, cat: a classifier needs at least two": one_class,
    r"has 2 class folders without images \(cow, dog\)": empty_classes,
    "has no class folders": no_folders,
    "is missing: name a folder": lambda folder: None,
    "no class of .* has two images": single_images,
}


@pytest.mark.parametrize(("message", "make"), ERRORS.items())
def test_folders_that_cannot_be_trained_on(tmp_path, message, make):
    make(tmp_path / "images")
    with pytest.raises(UserError, match=message):
        read_classified_images(tmp_path / "images")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.png cat\n0.png\n", r"list\.txt, line 2: expected '<path> <label>', found '0\.png'"),
        ("0.png cat\n1.png cat\n2.png dog\n", r"lists 2 images that do not exist \(first: .*1\.png\)"),
        ("0.png cat\n0.png dog\n", r"line 2: 0\.png has label cat on an earlier line"),
        (". cat\n", "do not exist"),
        (f"{'x' * 5000} cat\n", "do not exist"),
        ("\n", "lists no images"),
        ("0.png cat\n", "has one class"),
        ("\0 cat\n", "cannot be read as text"),
    ],
)
def test_lists_that_cannot_be_trained_on(tmp_path, text, message):
    draw_image(tmp_path / "0.png")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_classified_images(tmp_path / "list.txt")


def test_a_draw_keeps_the_order_of_the_images(tmp_path):
    images = LabelledImages([tmp_path / str(number) for number in range(20)], np.arange(20))
    drawn = images.draw(5, 1)
    assert drawn.classes.tolist() == sorted(set(drawn.classes.tolist()))
    assert len(drawn.classes) == 5
    assert [path.name for path in drawn.paths] == [str(index) for index in drawn.classes]
    assert images.draw(5, 2).paths != drawn.paths
    assert images.draw(50, 1).paths == images.paths
