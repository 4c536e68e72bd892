"""A number outside the range of its option is one line of error that names the range."""

import pytest

import LearningPCA_landmark
import Measure_OxfordParis
import Prepare_Datasets
import Search_Images
import Training_ImageNet
from models.poolings.regions import rmac_levels, rmac_regions
from models.poolings.rmac import RMAC
from utils.errors import UserError
from utils.options.option import InvalidValueError, Range
from utils.options.options_class import declared_options
from utils.program.run_command import run_command

SCRIPTS = {
    "measure": (Measure_OxfordParis, []),
    "train": (Training_ImageNet, []),
    "pca": (LearningPCA_landmark, []),
    "index": (Search_Images, ["index", "folder"]),
    "query": (Search_Images, ["query", "x.jpg"]),
    "prepare": (Prepare_Datasets, ["Mini"]),
}
HUGE = "1" + 499 * "0"
ENDLESS = 5000 * "7"

SPANS = {
    "measure --S": "from 1 to 32768",
    "measure --L": "from 1 to 30",
    "measure --seed": "from 0 to 4294967295",
    "measure --batch-size": "from 1 to 65536",
    "measure --workers": "from 0 to 1024",
    "measure --qe": "from 0 to 1000000",
    "measure --dba": "from 0 to 1000000",
    "measure --diffusion": "from 0 to 1000000",
    "measure --alpha": "from 0 to 100",
    "measure --diffusion-alpha": "from 0 to less than 1",
    "measure --scales": "greater than 0, 16 at most",
    "train --L": "from 1 to 30",
    "train --seed": "from 0 to 4294967295",
    "train --iterations": "from 1 to 1000000000",
    "train --batch-size": "from 1 to 65536",
    "train --accumulate": "from 1 to 1000000",
    "train --lr": "greater than 0, 1000 at most",
    "train --momentum": "from 0 to less than 1",
    "train --weight-decay": "from 0 to 1000",
    "train --checkpoint-every": "from 1 to 1000000000",
    "train --val-images": "from 1 to 1000000000",
    "train --crop": "from 1 to 32768",
    "train --validation-share": "greater than 0, less than 1",
    "train --classifier-steps": "from 1 to 1000000000",
    "train --resize 68": "from 1 to 32768",
    "pca --S": "from 1 to 32768",
    "pca --L": "from 1 to 30",
    "pca --min-side": "from 1 to 32768",
    "pca --components": "from 1 to 1000000000",
    "pca --samples": "from 1 to 1000000000",
    "pca --save-every": "from 0 to 1000000000",
    "index --L": "from 1 to 30",
    "index --S": "from 1 to 32768",
    "query --top": "from 1 to 1000000000",
    "query --box 1 2 3": "from -1000000 to 1000000",
    "prepare --max-files": "from 1 to 1000000000000",
    "prepare --max-bytes": "from 1 to 1000000000000000000",
    "prepare --seed": "from 0 to 4294967295",
}


def error_line(script, words, capsys):
    module, first = SCRIPTS[script]
    status = run_command(lambda: module.command_line([*first, *words]))
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 1000
    return err


@pytest.mark.parametrize("value", [HUGE, ENDLESS, "1e300", "1_0", "\u0661\u0660", "nan", "inf", "x", ""])
@pytest.mark.parametrize("option", SPANS)
def test_every_number_of_the_command_line_has_a_range_that_its_error_names(capsys, option, value):
    script, *words = option.split()
    err = error_line(script, [*words, value], capsys)
    assert f"argument {words[0]}: " in err
    assert err.endswith(f"{SPANS[option]} (--help lists the options)\n")


def test_the_help_names_the_range(capsys):
    with pytest.raises(SystemExit):
        Training_ImageNet.command_line(["--help"])
    message = " ".join(capsys.readouterr().out.split())
    assert "number of R-MAC levels (1 to 30) (default: 5)" in message
    assert "learning rate (greater than 0, 1000 at most) (default: 0.001)" in message


def option_of(script, name):
    classes = {
        "measure": Measure_OxfordParis.MeasureOptions,
        "train": Training_ImageNet.TrainingOptions,
        "pca": LearningPCA_landmark.PCAOptions,
        "query": Search_Images.QueryOptions,
    }
    return next(one for one in declared_options(classes[script]) if one.name == name)


@pytest.mark.parametrize(
    ("script", "name", "text", "number"),
    [
        ("measure", "L", "30", 30),
        ("measure", "L", "+1", 1),
        ("measure", "S", 5000 * "0" + "64", 64),
        ("measure", "workers", "-0", 0),
        ("measure", "alpha", "1e2", 100.0),
        ("measure", "alpha", ".5", 0.5),
        ("train", "lr", "1e-300", 1e-300),
        ("measure", "diffusion_alpha", "0.99", 0.99),
    ],
)
def test_numbers_in_the_range_are_read(script, name, text, number):
    value = option_of(script, name).parse(text)
    assert value == number
    assert isinstance(value, type(number))


@pytest.mark.parametrize("text", ["-1", "31", "0", "3.0", "3e0", "0x3", "- 3", "--3", "+-3", "+"])
def test_numbers_out_of_the_range_or_of_another_form_are_not(text):
    with pytest.raises(InvalidValueError, match="is not a whole number from 1 to 30"):
        option_of("measure", "L").parse(text)


@pytest.mark.parametrize(
    ("script", "name", "value"),
    [
        *[("measure", name, 10**500) for name in ("S", "L", "seed", "qe", "alpha", "batch_size")],
        *[("train", name, 10**500) for name in ("iterations", "accumulate", "lr", "crop", "val_images")],
        *[("train", "lr", value) for value in (0, -1.0, 1e300, float("nan"), "0.1", None, True)],
        *[("train", "momentum", value) for value in (1, 1e300, -0.1)],
        *[("train", "resize", value) for value in ([850], [850, 860, 870], 850, "850", [68, 10**500])],
        *[("train", "resize", value) for value in ([8.5, 9],)],
        *[("measure", "scales", value) for value in ([0], [17], [1, 10**500], [True])],
        *[("query", "box", value) for value in ([1, 2, 3], [0, 0, float("inf"), 1], [1, 2, 3, "4"])],
        *[("measure", "L", value) for value in (0, 31, 1000, 2.0)],
        ("measure", "L", None),
    ],
)
def test_python_callers_get_the_same_ranges(script, name, value):
    one = option_of(script, name)
    with pytest.raises(InvalidValueError, match=" is not ") as caught:
        one.check(value)
    assert str(one.valid) in str(caught.value)
    assert len(str(caught.value)) < 300


def test_integers_that_python_does_not_write_out_are_refused_as_well():
    for script, name, value in (("measure", "S", 10**5000), ("measure", "alpha", 10**5000)):
        with pytest.raises(InvalidValueError, match=r"^an integer of thousands of digits is not "):
            option_of(script, name).check(value)
    with pytest.raises(InvalidValueError, match=r"^an integer of thousands of digits is not "):
        option_of("train", "resize").check([1, 10**5000])


@pytest.mark.parametrize("scales", [[], [1.0] * 101])
def test_there_are_1_to_100_scales(scales):
    with pytest.raises(UserError, match=r"^scales .* is not a list of 1 to 100 numbers"):
        Measure_OxfordParis.MeasureOptions(scales=scales)


def test_values_at_the_limits_and_the_optional_ones_pass():
    options = Measure_OxfordParis.MeasureOptions(L=30, S=1, scales=(16, 0.1), batch_size=None)
    assert (options.L, options.S, options.scales, options.batch_size) == (30, 1, (16.0, 0.1), None)
    assert Training_ImageNet.TrainingOptions(lr=1000, momentum=0).lr == 1000
    assert 1.0 not in Range(0, 1, exclude_most=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Measure_OxfordParis.main("none", L=1000),
        lambda: Training_ImageNet.main(L=1000),
        lambda: Training_ImageNet.main(resize=[68, 10**500], crop=64),
        lambda: Training_ImageNet.main(lr=1e300),
        lambda: LearningPCA_landmark.main(L=1000),
        lambda: LearningPCA_landmark.main(save_every=float("inf")),
        lambda: Search_Images.index("none", L=1000),
        lambda: Search_Images.describe([], L=1000),
        lambda: Search_Images.search("none.jpg", top=10**500),
        lambda: Prepare_Datasets.main("Mini", seed=-1),
    ],
)
def test_the_scripts_functions_check_before_any_work(call):
    with pytest.raises(UserError, match=" is not "):
        call()


@pytest.mark.parametrize("levels", [0, 31, 1000, 10**500])
def test_the_models_take_no_more_levels_either(levels):
    for call in (
        lambda: rmac_regions(64, 48, levels),
        lambda: rmac_levels(64, 48, levels),
        lambda: RMAC(levels, 32),
    ):
        with pytest.raises(ValueError, match="levels must be from 1 to 30"):
            call()


def test_thirty_levels_have_their_regions():
    # l x l regions of a square image at each level: 30 * 31 * 61 / 6.
    assert len(rmac_regions(1024, 1024, 30)) == 9455
