import math
import stat
import sys

import numpy as np
import pytest
from conftest import golden_json
from reference import average_precision

from utils.errors import UserError
from utils.scoring import compute_ap as compute_ap_module
from utils.scoring.compute_ap import check_program, compute_ap, compute_ap_by_binary


@pytest.mark.parametrize("case", golden_json("average_precision"))
def test_equals_vggs_program_to_its_printed_digits(case):
    precision = compute_ap(case["ranking"], case["good"], case["ok"], case["junk"])
    assert f"{precision:.6g}" == f"{case['ap']:.6g}"


def printed(precision):
    return f"{precision:.6g}"


# The last printed digit of VGG's program depends on its types: float for the variables, double for the
# literals and for products with them.
@pytest.mark.parametrize(
    ("positives", "gap", "expected"),
    [
        (17, 7, "0.129551"),
        (23, 3, "0.311783"),
        (59, 7, "0.137747"),
        (91, 8, "0.121804"),
        (185, 5, "0.197324"),
    ],
)
def test_computes_in_float32_as_vggs_program_does(positives, gap, expected):
    ranking = [str(index) for index in range(positives * gap)]
    good = ranking[gap - 1 :: gap]
    assert printed(compute_ap(ranking, good, [], [])) == expected
    assert printed(average_precision(ranking, set(good), np.float32, float)) == expected
    others = {
        printed(average_precision(ranking, set(good), number, number)) for number in (float, np.float32)
    }
    assert others != {expected}


def test_is_the_area_by_trapezoids():
    # After each of the four images: recall 1/2, 1/2, 1, 1 and precision 1, 1/2, 2/3, 1/2. From recall 0 and
    # precision 1, the area is 1/2 * (1 + 1) / 2 + 1/2 * (1/2 + 2/3) / 2.
    assert compute_ap("adbe", "a", "b", "") == pytest.approx(0.5 + 0.5 * (0.5 + 2 / 3) / 2)


def test_junk_is_passed_over_even_where_it_is_good_too():
    assert compute_ap("jabj", ["a"], ["b"], ["j"]) == 1
    # g is skipped in the ranking as junk, but is a positive in the recall, which ends at 1/2.
    assert compute_ap("gab", ["g", "a"], [], ["g"]) == pytest.approx(0.5)


def test_recall_is_over_all_listed_positives():
    assert compute_ap("a", ["a", "missing"], [], []) == pytest.approx(0.5)
    assert compute_ap([], ["a"], [], []) == 0


def test_without_positives_it_is_undefined():
    assert math.isnan(compute_ap("ab", [], [], ["a"]))


def program(folder, body):
    """Write an executable that replaces VGG's compiled program, and return its path."""
    path = folder / "compute_ap"
    path.write_text(f"#!{sys.executable}\nimport sys\nlabels, ranking = sys.argv[1:]\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_program_is_given_the_labels_and_the_ranking(tmp_path):
    ranking = tmp_path / "q_1.rnk"
    ranking.write_text("a\n")
    (tmp_path / "q_1_good.txt").write_text("0.25")
    binary = program(
        tmp_path, "print(float(open(labels + '_good.txt').read()) + len(open(ranking).read()) / 8)"
    )
    assert compute_ap_by_binary(binary, tmp_path / "q_1", ranking) == 0.5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(3)", "status 3"),
        ("print('oops')", "not a number"),
        ("print(1.5)", "not a number from 0 to 1"),
        ("sys.stdout.buffer.write(b'\\xff')", "not a number"),
    ],
)
def test_a_failing_program_is_an_error(tmp_path, body, message):
    with pytest.raises(UserError, match=message):
        compute_ap_by_binary(program(tmp_path, body), tmp_path / "q_1", tmp_path / "q_1.rnk")


def test_a_program_that_does_not_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(compute_ap_module, "BINARY_TIMEOUT", 0.5)
    binary = program(tmp_path, "import time\ntime.sleep(30)\nprint(0.5)")
    with pytest.raises(UserError, match="timed out"):
        compute_ap_by_binary(binary, tmp_path / "q_1", tmp_path / "q_1.rnk")


def test_a_program_that_cannot_run_is_an_error(tmp_path):
    (tmp_path / "text").write_text("no program")
    with pytest.raises(UserError, match="cannot be run"):
        compute_ap_by_binary(tmp_path / "text", tmp_path / "q_1", tmp_path / "q_1.rnk")


def test_a_program_may_print_that_it_is_undefined(tmp_path):
    (tmp_path / "q_1.rnk").touch()
    binary = program(tmp_path, "print('nan')")
    assert math.isnan(compute_ap_by_binary(binary, tmp_path / "q_1", tmp_path / "q_1.rnk"))


def test_a_file_without_permission_to_execute_is_refused(tmp_path):
    (tmp_path / "compute_ap").touch(mode=0o644)
    with pytest.raises(UserError, match="chmod"):
        check_program(tmp_path / "compute_ap")
    check_program(program(tmp_path, ""))
