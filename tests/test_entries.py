import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import run_on_small_disk

from utils.errors import UserError
from utils.files.entries import replace_entries
from utils.files.lock import in_turn, only_writer

ROOT = Path(__file__).parents[1]
NAMES = ("array", "folder", "record")


def write(folder, text):
    (folder / "array").write_text(text)
    (folder / "folder").mkdir()
    (folder / "folder" / text).touch()
    (folder / "record").write_text(text)


def contents(folder):
    """Return the text of each file below a folder, by path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def of(text):
    return {"array": text, f"folder/{text}": "", "record": text}


def test_entries_are_replaced_together_and_other_files_stay(tmp_path):
    output = tmp_path / "new" / "output"
    for text in ("first", "second"):
        with replace_entries(output, NAMES) as draft:
            write(draft, text)
            assert contents(draft) == of(text)
        assert contents(output) == of(text) | ({"mine": "mine"} if text == "second" else {})
        (output / "mine").write_text("mine")
    with replace_entries(output, NAMES) as draft:
        (draft / "record").write_text("third")
    assert contents(output) == {"record": "third", "mine": "mine"}


def test_a_failure_leaves_the_entries_from_before_or_nothing(tmp_path):
    for output, before in ((tmp_path / "old", of("old")), (tmp_path / "none", {})):
        if before:
            output.mkdir()
            write(output, "old")
        with pytest.raises(RuntimeError), replace_entries(output, NAMES) as draft:
            write(draft, "new")
            raise RuntimeError
        assert contents(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("failing", range(6))
def test_a_move_that_fails_is_undone(tmp_path, monkeypatch, failing):
    write(tmp_path, "old")
    rename, moves = Path.rename, []

    def fail_once(source, target):
        moves.append(source)
        if len(moves) == failing + 1:
            raise PermissionError(13, "Permission denied")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(UserError, match="Permission denied"), replace_entries(tmp_path, NAMES) as draft:
        write(draft, "new")
    assert contents(tmp_path) == of("old")
    assert len(list(tmp_path.iterdir())) == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.test_entries import NAMES, write
from utils.files.entries import replace_entries

rename, moves = Path.rename, []

def kill(source, target):
    moves.append(source)
    if len(moves) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(source, target)

Path.rename = kill
with replace_entries(Path(sys.argv[1]), NAMES) as draft:
    write(draft, "new")
    if sys.argv[2] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moves", range(7))
def test_a_kill_between_two_moves_loses_nothing(tmp_path, moves):
    write(tmp_path, "old")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(moves)], env=environment, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    if (tmp_path / "record").exists():  # a record exists only with the files that belong to it
        assert contents(tmp_path / "folder") == {"old": ""}
        assert (tmp_path / "array").read_text() == "old"
    with pytest.raises(RuntimeError), replace_entries(tmp_path, NAMES):
        raise RuntimeError
    assert contents(tmp_path) == of("old")
    assert len(list(tmp_path.iterdir())) == 3


FULL = """
import sys
from pathlib import Path
from tests.test_entries import NAMES, contents, of, write
from utils.program.run_command import run_command
from utils.files.entries import replace_entries
from utils.files.writing import replace_file

output = Path(sys.argv[1]) / "output"

def evaluate():
    with replace_entries(output, NAMES) as draft:
        with replace_file(draft / "array") as file:
            file.write(bytes(1 << 20))

with replace_entries(output, NAMES) as draft:
    write(draft, "old")
status = run_command(evaluate)
assert contents(output) == of("old"), contents(output)
sys.exit(status)
"""


@pytest.mark.slow
def test_a_full_disk_keeps_the_entries_from_before(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    done = run_on_small_disk(tmp_path, "128k", [sys.executable, "-c", FULL, tmp_path])
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write ")
    assert done.stderr.endswith("array: the disk is full\n")


def test_two_at_once_leave_the_entries_of_the_last_one(tmp_path):
    inside, go_on = threading.Event(), threading.Event()

    def first():
        with replace_entries(tmp_path, NAMES) as draft:
            inside.set()
            go_on.wait()
            write(draft, "first")

    def second():
        with replace_entries(tmp_path, NAMES) as draft:
            assert contents(tmp_path) == of("first") | {".lock": ""}
            write(draft, "second")

    threads = [threading.Thread(target=run) for run in (first, second)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert contents(tmp_path) == of("second")


def test_a_lock_refuses_a_second_writer_and_leaves_no_file(tmp_path):
    lock, target = tmp_path / "lock", tmp_path / "target"
    with only_writer(lock, target):
        for _ in range(2):
            refused = pytest.raises(UserError, match=f"^another process is writing to {target}: wait for it$")
            with refused, only_writer(lock, target):
                pytest.fail("two at once")
    assert not list(tmp_path.iterdir())
    lock.touch()  # left by a killed process
    with only_writer(lock, target):
        pass
    assert not list(tmp_path.iterdir())


def test_a_block_that_fails_leaves_no_lock(tmp_path):
    with pytest.raises(RuntimeError), only_writer(tmp_path / "lock", tmp_path):
        raise RuntimeError
    with pytest.raises(RuntimeError), in_turn(tmp_path / "lock"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_user_with_the_name_of_a_lock_stays(tmp_path):
    (tmp_path / "lock").write_text("mine")
    with only_writer(tmp_path / "lock", tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == "mine"


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot write .*file/lock"),
        only_writer(tmp_path / "file" / "lock", tmp_path),
    ):
        pytest.fail("no folder")
