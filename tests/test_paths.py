from pathlib import Path

import pytest

import LearningPCA_landmark
import Measure_OxfordParis
import Prepare_Datasets
import Search_Images
import Training_ImageNet
from utils.errors import UserError
from utils.files.paths import user_path
from utils.program.run_command import run_command


def test_a_tilde_stands_for_the_home_of_a_user_that_exists(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/x") == Path("/home/me/x")
    assert user_path("~no-such-user/x") == Path("~no-such-user/x")
    assert user_path("a/~/x") == Path("a/~/x")


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("a\0b", "null character")])
def test_what_is_no_path_is_refused_by_the_options_name(text, message):
    with pytest.raises(UserError, match=f"^output .*{message}"):
        user_path(text, "output")


OPTIONS = [
    *((Measure_OxfordParis, [option]) for option in ("--output", "--figures", "--descriptors", "--dataset")),
    *((Measure_OxfordParis, [option]) for option in ("--eval-binary", "--datasets-dir", "--weights-dir")),
    *((Training_ImageNet, [option]) for option in ("--output", "--precompute", "--datasets-dir")),
    *((Training_ImageNet, [option]) for option in ("--weights-dir", "--images", "--validation")),
    (Training_ImageNet, ["--classifier"]),
    *((LearningPCA_landmark, [option]) for option in ("--output", "--datasets-dir", "--weights-dir")),
    *((Prepare_Datasets, ["Mini", option]) for option in ("--datasets-dir", "--weights-dir", "--archive")),
    *((Prepare_Datasets, words) for words in (["Mini", "--distractors"], ["verify"])),
    *((Search_Images, words) for words in (["index"], ["index", "x", "--index"], ["query"])),
    *((Search_Images, ["query", "x", option]) for option in ("--json", "--html", "--index")),
    *((Search_Images, [command, "x", "--weights-dir"]) for command in ("index", "query")),
]


@pytest.mark.parametrize(("script", "words"), OPTIONS)
def test_an_empty_path_is_refused_by_every_option(script, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(lambda: script.command_line([*words, ""])) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert "is empty" in err
    assert not list(tmp_path.iterdir())


CALLS = [
    *(lambda name=name: Measure_OxfordParis.main("x", **{name: ""}) for name in ("output", "figures")),
    *(
        lambda name=name: Measure_OxfordParis.main("x", **{name: ""})
        for name in ("descriptors", "eval_binary")
    ),
    *(lambda name=name: Training_ImageNet.main(**{name: ""}) for name in ("output", "precompute")),
    *(lambda name=name: LearningPCA_landmark.main(**{name: ""}) for name in ("output", "weights_dir")),
    *(
        lambda name=name: Prepare_Datasets.main("Mini", **{name: ""})
        for name in ("datasets_dir", "distractors")
    ),
    lambda: Prepare_Datasets.main("Oxford", archives=[""]),
    lambda: Search_Images.index(""),
    lambda: Search_Images.index("x", index=""),
    lambda: Search_Images.search("", index="x"),
    lambda: Search_Images.search("x", html=""),
    lambda: Search_Images.describe([""]),
]


@pytest.mark.parametrize("call", CALLS)
def test_an_empty_path_is_refused_by_every_function(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is empty"):
        call()
    assert not list(tmp_path.iterdir())
