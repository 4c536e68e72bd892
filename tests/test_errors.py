import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError, run_command


def test_a_user_error_is_one_line_and_status_2(capsys):
    def fail():
        raise UserError("a file\nis missing")

    assert run_command(fail) == 2
    assert capsys.readouterr() == ("", "error: a file\\nis missing\n")


def test_success_is_0_and_an_interruption_130(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert run_command(lambda: print("done")) == 0
    assert capsys.readouterr().out == "done\n"
    assert run_command(interrupt) == 130


def test_a_mistake_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


def test_an_error_of_the_system_is_one_line_and_status_2(capsys):
    def fail():
        Path("/nowhere/at/all").read_text()

    assert run_command(fail) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert "/nowhere/at/all" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [("> /dev/full", 2, "error: "), (">&-", 0, ""), ("| true", 141, "")],
)
def test_standard_output_may_be_full_closed_or_gone(redirection, status, said):
    code = (
        "import sys, time; from utils.errors import run_command; "
        "sys.exit(run_command(lambda: (time.sleep(0.3), print('x' * 99999))))"
    )
    script = f'"{sys.executable}" -c "{code}" {redirection}; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == status
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)


def test_a_name_that_the_terminal_cannot_show_is_printed_all_the_same():
    code = "from utils.errors import run_command; run_command(lambda: print('caf\u00e9'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout == b"caf\\xe9\n"
