"""Options declared once serve the command line, Python callers and saved settings."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import pytest

from utils.errors import UserError
from utils.options.option import Range
from utils.options.options_class import option, options_class, redefault
from utils.options.parser import called_with, parse_options
from utils.options.saved_options import binding_settings, to_json


@options_class
class Shared:
    title = "shared"

    S: int = option(default=1024, help="side", valid=Range(1, 4096), binding=True)
    whiten: bool = option(default=True, help="leave whitening out", flag="--no-whiten")


@options_class
class Options(Shared):
    title = "job"

    S: int = redefault(Shared, "S", 800)
    dataset: str = option(default="Oxford", help="name", kw_only=False)
    pooling: Literal["ra", "mac"] = option(default="ra", help="pooling")
    scales: tuple[float, ...] = option(default=(1.0,), help="factors", valid=Range(0, 10))
    output: Path | None = option(default=None, help="folder")

    def check(self):
        if self.pooling == "mac" and self.whiten:
            raise UserError("mac is not whitened here")


def test_a_command_line_gives_values_of_the_declared_types():
    words = ["--S", "64", "--scales", "1,0.5", "--no-whiten", "--pooling", "mac", "--output", "out"]
    options = parse_options(Options, "A job.", words)
    assert dataclasses.asdict(options) == {
        "S": 64,
        "whiten": False,
        "dataset": "Oxford",
        "pooling": "mac",
        "scales": (1.0, 0.5),
        "output": Path("out"),
    }


def test_python_callers_give_options_by_name_and_the_first_by_position():
    main = called_with(Options)(lambda options: options)
    assert main("Paris", S=5) == Options("Paris", S=5)
    assert main().S == 800
    with pytest.raises(UserError, match=r"^S True is not a whole number from 1 to 4096$"):
        main(S=True)
    with pytest.raises(
        UserError, match=r"^scales '1,2' is not a list of any number of values, each a number f"
    ):
        main(scales="1,2")
    with pytest.raises(UserError, match=r"^scales '1' is not a number from 0 to 10$"):
        main(scales=["1"])
    with pytest.raises(UserError, match=r"^mac is not whitened here$"):
        main(pooling="mac")
    with pytest.raises(TypeError, match="unknown"):
        main(unknown=1)


def test_only_what_saved_work_depends_on_is_binding():
    assert binding_settings(Options(S=7)) == {"S": 7}


def test_a_record_of_a_run_repeats_it_unless_an_option_is_given(tmp_path):
    options = Options("Paris", S=64, scales=(0.5, 2), output=Path("out"))
    record = tmp_path / "results.json"
    record.write_text(json.dumps({"settings": to_json(options), "mAP": 0.5}))
    assert parse_options(Options, "A job.", ["--config", str(record)]) == options
    changed = parse_options(Options, "A job.", ["--config", str(record), "--S", "32"])
    assert changed == dataclasses.replace(options, S=32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"settings": {"size": 5}}', "'size' is no option of this script"),
        ('{"settings": {"S": "64"}}', "S '64' is not a whole number from 1 to 4096"),
        ('{"settings": {"S": 0}}', "S 0 is not a whole number"),
        ('{"settings": 5}', "is unreadable"),
        ("<html>", "is unreadable"),
    ],
)
def test_a_record_that_does_not_fit_is_named(tmp_path, text, message):
    record = tmp_path / "results.json"
    record.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        parse_options(Options, "A job.", ["--config", str(record)])
    assert str(record) in str(caught.value)
    with pytest.raises(UserError, match="is missing"):
        parse_options(Options, "A job.", ["--config", str(tmp_path / "none.json")])


def test_the_path_of_a_record_is_one_as_users_write_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = Options("Paris", S=64)
    (tmp_path / "results.json").write_text(json.dumps({"settings": to_json(options)}))
    assert parse_options(Options, "A job.", ["--config", "~/results.json"]) == options
    with pytest.raises(UserError, match=r"^--config is empty: name a file or a folder$"):
        parse_options(Options, "A job.", ["--config", ""])
