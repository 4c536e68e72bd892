import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.errors import UserError
from utils.program import bug_report
from utils.program.run_command import run_command


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


def test_a_bug_keeps_its_traceback_and_asks_for_a_report(capsys):
    assert run_command(lambda: 1 / 0) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "ZeroDivisionError: division by zero"
    assert lines[-1].startswith("this is a bug of the program")
    for version in ("regional-attention-retrieval 0.1.0", platform.python_version(), torch.__version__[:4]):
        assert version in lines[-1]
    assert bug_report.ISSUE_TRACKER in lines[-1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nstack"), "--batch-size"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory"),
            "--S",
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), "memory"),
        (RuntimeError("DataLoader worker (pid 77) is killed by signal: Killed. "), "--workers"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "--batch-size"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), "--shm-size"),
        (RuntimeError("can't start new thread"), "threads"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "/x/y"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "invalid start byte"),
        (ModuleNotFoundError("No module named 'faiss'", name="faiss"), "pip install"),
    ],
)
def test_an_error_from_outside_is_one_line(capsys, error, message):
    def fail():
        raise error

    assert run_command(fail) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("text", ["shapes do not match", "CUDA error: device-side assert triggered"])
def test_other_runtime_errors_are_bugs(capsys, text):
    def fail():
        raise RuntimeError(text)

    assert run_command(fail) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_that_became_another_error_is_one(capsys):
    def fail():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("half imported")  # noqa: B904

    assert run_command(fail) == 130
    assert capsys.readouterr().err == "interrupted\n"


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
    ("redirection", "status", "message"),
    [("> /dev/full", 2, "error: "), (">&-", 0, ""), ("| true", 141, "")],
)
def test_standard_output_may_be_full_closed_or_gone(redirection, status, message):
    code = (
        "import sys, time; from utils.program.run_command import run_command; "
        "sys.exit(run_command(lambda: (time.sleep(0.3), print('x' * 99999))))"
    )
    script = f'"{sys.executable}" -c "{code}" {redirection}; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == status
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == bool(message)


def test_a_name_that_the_terminal_cannot_show_is_printed_all_the_same():
    code = "from utils.program.run_command import run_command; run_command(lambda: print('caf\u00e9'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout == b"caf\\xe9\n"


@pytest.mark.parametrize("script", ["Measure_OxfordParis.py", "Search_Images.py", "LearningPCA_landmark.py"])
def test_no_warning_about_matplotlibs_cache_without_a_home_folder(script):
    variables = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / script, "--help"],
        env={**os.environ, **dict.fromkeys(variables, "/proc/none")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_garbage_is_collected_again_once_the_command_runs():
    program = """
import gc
import utils.program.start
from utils.program.run_command import run_command
print(gc.isenabled())
run_command(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0))
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "False\nTrue True\n"
