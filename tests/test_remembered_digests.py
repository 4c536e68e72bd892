import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.files import digests
from utils.files.digests import remembered_digest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder of the user; files count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -10.0)
    return tmp_path / "cache"


class Reader:
    """A computation that returns the contents of files and counts its calls."""

    def __init__(self, *paths):
        self.paths = paths
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return " ".join(path.read_text() for path in self.paths)


def digest(reader, kind="contents"):
    return remembered_digest(reader.paths, kind, reader)


def test_a_digest_is_computed_once_per_kind_and_files(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("one")
    b.write_text("two")
    reader = Reader(a, b)
    assert [digest(reader) for _ in range(3)] == ["one two"] * 3
    assert reader.calls == 1
    assert digest(reader, "another kind") == "one two"
    assert digest(Reader(b, a)) == "two one"
    assert reader.calls == 2


def replace_by_another_file(path):
    path.with_name("new").write_text("two")
    path.with_name("new").replace(path)


def write_in_place(path):
    with path.open("r+") as file:
        file.write("two")


@pytest.mark.parametrize("change", [replace_by_another_file, write_in_place])
@pytest.mark.parametrize("moved", [-1_000_000_000, 0, 1_000_000_000])
def test_a_file_of_the_same_size_and_an_older_or_the_same_time_is_read_again(tmp_path, change, moved):
    path = tmp_path / "a"
    path.write_text("one")
    reader = Reader(path)
    assert digest(reader) == "one"
    before = path.stat()
    change(path)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # within one tick of the clock of the disk
        change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + moved))
    assert digest(reader) == "two"
    assert digest(reader) == "two"
    assert reader.calls == 2


def test_a_link_to_another_file_is_read_again(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "link"
    for name in ("one", "two", "one"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name)
        assert digest(Reader(link)) == name


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 3600.0)
    path = tmp_path / "a"
    path.write_text("one")
    reader = Reader(path)
    assert (digest(reader), digest(reader), reader.calls) == ("one", "one", 2)
    assert not cache.exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, cache):
    path = tmp_path / "a"
    path.write_text("one")

    def compute():
        path.write_text("another size")
        return "one"

    assert remembered_digest([path], "contents", compute) == "one"
    assert not cache.exists()


def test_the_error_of_a_missing_file_is_that_of_the_computation(tmp_path):
    with pytest.raises(FileNotFoundError):
        digest(Reader(tmp_path / "missing"))


@pytest.mark.parametrize("contents", [b"", b"[]", b'{"digest": "wrong"}', b"\xff"])
def test_an_unreadable_record_is_replaced(tmp_path, cache, contents):
    path = tmp_path / "a"
    path.write_text("one")
    reader = Reader(path)
    digest(reader)
    (record,) = cache.rglob("*.json")
    record.write_bytes(contents)
    assert (digest(reader), digest(reader), reader.calls) == ("one", "one", 2)


def test_a_record_of_another_file_is_not_used(tmp_path, cache):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    digest(Reader(tmp_path / "a"))
    (record,) = cache.rglob("*.json")
    digest(Reader(tmp_path / "b"))
    (other,) = set(cache.rglob("*.json")) - {record}
    other.write_bytes(record.read_bytes())
    assert digest(Reader(tmp_path / "b")) == "b"


def test_without_a_cache_folder_each_call_computes(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    path = tmp_path / "a"
    path.write_text("one")
    reader = Reader(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # cannot be a folder
    assert (digest(reader), digest(reader), reader.calls) == ("one", "one", 2)


PROCESS = """
import sys
from pathlib import Path
from utils.files import digests
digests.SETTLED_SECONDS = -10.0
path = Path(sys.argv[1])
for _ in range(200):
    digest = digests.remembered_digest([path], f"kind {_ % 5}", path.read_text)
    assert digest == "one", digest
    for record in Path(sys.argv[2]).rglob("*.json") if _ % 10 == 0 else ():
        record.unlink(missing_ok=True)
"""


def test_processes_that_write_at_once_do_not_disturb_each_other(tmp_path, cache):
    path = tmp_path / "a"
    path.write_text("one")
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, path, cache], cwd=ROOT, env=os.environ)
        for _ in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert not list(cache.rglob("*.tmp"))
