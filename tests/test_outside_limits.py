"""Limits of the system: shared memory, open files, closed streams, interrupts."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
from conftest import ROOT, draw_image, evaluation
from torch.utils.data import Dataset

from utils.errors import UserError
from utils.images.workers import worker_items

SCRIPTS = sorted(path.name for path in ROOT.glob("*_*.py"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root may mount")
def test_workers_need_no_shared_memory(tmp_path):
    """An image of 1024 x 768 x 3 bytes is larger than the shared memory."""
    (tmp_path / "photos").mkdir()
    for seed in range(6):
        draw_image(tmp_path / "photos" / f"{seed}.png", seed, (1024, 768))
    index = [sys.executable, ROOT / "Search_Images.py", "index", tmp_path / "photos", "--device", "cpu"]
    index += ["--index", tmp_path / "index", "--workers", "2", "--S", "1024"]
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *index], capture_output=True, text=True, timeout=120
    )
    if done.returncode == 77:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 images of ")


@pytest.mark.slow
def test_standard_error_may_be_closed(dataset, tmp_path):
    words = [sys.executable, *evaluation(dataset)]
    open_streams = subprocess.run(words, capture_output=True, text=True)
    closed = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], capture_output=True, text=True)
    assert (closed.returncode, closed.stdout) == (0, open_streams.stdout)
    assert "Mean" in closed.stdout


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.5])
def test_ctrl_c_while_modules_are_imported_is_quiet(script, seconds):
    process = subprocess.Popen(
        [sys.executable, ROOT / script, "--help"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # Python restores the default action of the signal just before its process ends.
    assert (process.returncode, err) in ((130, "interrupted\n"), (0, ""), (-signal.SIGINT, ""))


@pytest.mark.slow
def test_one_unreadable_image_ends_all_processes_without_their_tracebacks(dataset):
    from conftest import TWO_PROCESSES

    (dataset / "jpg" / "c.png").write_bytes(b"")
    done = subprocess.run(
        [*TWO_PROCESSES, *evaluation(dataset)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.count("error: ") >= 1
    assert f"error: {dataset / 'jpg' / 'c.png'} cannot be decoded" in done.stderr
    assert done.stderr.count("Traceback (most recent call last)") == 1  # in the summary of torchrun
    assert "ChildFailedError" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_too_little_memory_for_the_imports_is_one_line(script):
    limited = 'ulimit -v 1000000; exec "$@"'
    words = ["sh", "-c", limited, "sh", sys.executable, ROOT / script, "--help"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: the memory does not suffice to load torch")
    assert "ulimit -v" in done.stderr
    assert "--" not in done.stderr  # no option can help
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_evaluation_needs_fewer_than_64_open_files(dataset):
    words = [sys.executable, *evaluation(dataset, "--workers", "2")]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Mean" in done.stdout


@pytest.mark.parametrize(
    "error",
    [
        SystemError("error return without exception set"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        MemoryError(),
        OSError("Could not find/load shared object file 'libllvmlite.so' from resource location: ..."),
    ],
)
def test_an_import_that_fails_without_memory_names_the_limit_and_no_option(error):
    code = f"import utils.program.start; raise {error!r}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == (
        "error: the memory does not suffice to load torch and other libraries: close other programs, "
        "or raise the limit (ulimit -v)\n"
    )


class Failing(Dataset):
    def __getitem__(self, number):
        raise UserError(f"number {number}\nfails")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, os.cpu_count() + 1])
@pytest.mark.parametrize(("numbers", "collate"), [([7], None), ([[7, 8]], list)])
def test_an_error_of_a_worker_keeps_its_text_and_torch_is_quiet(workers, numbers, collate):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(UserError) as error:
            list(worker_items(Failing(), numbers, collate, workers, 1))
    assert str(error.value) == "number 7\nfails"
    assert caught == []
