"""Invalid options of the evaluation are one line of error, on the command line and in Python."""

import numpy as np
import pytest

import Measure_OxfordParis
from utils.errors import UserError

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--alpha x", "--alpha: 'x' is not a number from 0 to 100"),
        ("--alpha -1", "--alpha: '-1' is not a number from 0 to 100"),
        ("--alpha nan", "--alpha: 'nan' is not a number from 0 to 100"),
        ("--diffusion-alpha 1.0", "'1.0' is not a number from 0 to less than 1"),
        ("--diffusion-alpha -0.1", "'-0.1' is not a number from 0 to less than 1"),
        ("--diffusion -1", "--diffusion: '-1' is not a whole number from 0 to 1000000"),
        ("--dba 1.5", "--dba: '1.5' is not a whole number from 0 to 1000000"),
        ("--search faiss", "--search: 'faiss' is not one of exact, faiss-flat, faiss-ivfpq"),
        ("--store-precision int8", "--store-precision: 'int8' is not one of float32, float16"),
        ("--compare ra", "compare ra is not two or more different poolings"),
        ("--compare mac,mac", "compare mac,mac is not two or more different poolings"),
        ("--compare mac,sum", "--compare: 'sum' is not one of ra, rmac, mac, spoc, gem, rgem"),
        ("--compare mac,", "--compare: '' is not one of ra, rmac, mac, spoc, gem, rgem"),
        ("--pooling gem --gem-p 0.5", "--gem-p: '0.5' is not a number from 1 to 100"),
        ("--pooling gem --gem-p inf", "--gem-p: 'inf' is not a number from 1 to 100"),
        ("--gem-p 4", "gem_p 4.0 has no effect without GeM: choose pooling gem or rgem"),
        ("--pooling mac --gem-p 4", "gem_p 4.0 has no effect without GeM: choose pooling gem or rgem"),
        ("--pooling gem --compare mac,spoc --gem-p 4", "gem_p 4.0 has no effect without GeM"),
        ("--scales 1,inf", "'inf' is not a number greater than 0, 16 at most"),
        ("--qe 0 --alpha 3", "alpha 3.0 has no effect without query expansion"),
        ("--diffusion-alpha 0.5", "diffusion_alpha 0.5 has no effect without diffusion"),
        ("--rerank-by superglobal", "rerank_by superglobal has no effect without rerank"),
        ("--rerank 9 --rerank-by superglobal,superglobal", "is not a list of different re-rankings"),
        ("--rerank-neighbours 4", "rerank_neighbours 4 has no effect without re-ranking"),
        ("--store-precision float16", "store_precision float16 has no effect without a store"),
    ],
)
def test_of_the_command_line_a_wrong_option_is_one_line(measure, words, message):
    status, out, err = measure(*words.split())
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("alpha", value) for value in ("x", -1, NAN, INFINITE, None, [1])],
        *[("diffusion_alpha", value) for value in ("x", 1.0, -0.1, NAN, None)],
        *[("compare", value) for value in ("ra,rmac", ["mac", "sum"], ["mac", "mac"], ["mac"], [["mac"], 1])],
        *[("scales", value) for value in ((), [0], [1, "2"], "1,2", 1, [NAN])],
        *[(name, value) for name in ("dba", "diffusion") for value in (-1, 1.0, "2", np.int64(2))],
        *[("gem_p", value) for value in (0, 101, "3", NAN, None, 4)],
        *[(name, None) for name in ("pooling", "search", "store_precision")],
        ("search", "faiss"),
    ],
)
def test_pythons_main_refuses_it_by_its_name_before_any_work(name, value):
    with pytest.raises(UserError, match=f"^{name} ") as caught:
        Measure_OxfordParis.main("no such data set", **{name: value})
    assert "\n" not in str(caught.value)


def test_the_help_names_defaults_as_they_are_typed_and_none_that_say_nothing(capsys):
    with pytest.raises(SystemExit) as caught:
        Measure_OxfordParis.command_line(["--help"])
    assert caught.value.code == 0
    message = " ".join(capsys.readouterr().out.split())
    defaults = {
        option.split()[0]: option.split("(default: ")[1].split(")")[0]
        for option in message.split(" --")
        if "(default: " in option
    }
    assert {name: defaults[name] for name in ("scales", "qe", "dba", "alpha", "pooling", "seed")} == {
        "scales": "1",
        "qe": "5",
        "dba": "0",
        "alpha": "0.0",
        "pooling": "ra",
        "seed": "0",
    }
    assert not {"output", "compare", "compile", "no-whiten", "workers", "descriptors"} & defaults.keys()


def test_of_options_that_go_together_only_the_data_set_is_missed(tmp_path):
    options = {"alpha": 3, "diffusion": 2, "diffusion_alpha": 0, "scales": [1, 0.5], "gem_p": 4}
    options["compare"] = ["mac", "gem"]
    store = {"descriptors": tmp_path / "store", "store_precision": "float16"}
    with pytest.raises(UserError, match="no data set at"):
        Measure_OxfordParis.main("no such data set", device="cpu", **options, **store)
