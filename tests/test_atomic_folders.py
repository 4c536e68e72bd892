import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files.folders import replace_folder


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_folder_replaces_the_old_one(tmp_path):
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with replace_folder(path) as draft:
            (draft / content).touch()
        assert names(path) == [content]
    with pytest.raises(RuntimeError), replace_folder(path) as draft:
        (draft / "half").touch()
        raise RuntimeError
    assert names(path) == ["second"]
    assert names(tmp_path) == ["folder"]


def rename_by(monkeypatch, before):
    """Call `before(source, target)` before every renaming."""
    rename = Path.rename

    def patched(source, target):
        before(source, target)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", patched)


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failed_replacement_leaves_the_old_folder(tmp_path, monkeypatch, failure):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()

    def fail_once(source, target):
        if (source / "new").exists():
            raise failure

    rename_by(monkeypatch, fail_once)
    with pytest.raises((UserError, KeyboardInterrupt)), replace_folder(path) as draft:
        (draft / "new").touch()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_one_of_two_processes_replaces_the_folder(tmp_path, monkeypatch, there_before, keep):
    path = tmp_path / "folder"
    if there_before:
        path.mkdir()
        (path / "old").touch()
    others = [tmp_path / "other"]
    others[0].mkdir()
    (others[0] / "theirs").touch()

    def other_process_is_faster(source, target):
        if (source / "mine").exists() and others:
            shutil.move(others.pop(), path)

    rename_by(monkeypatch, other_process_is_faster)
    with replace_folder(path, keep=lambda: keep and (path / "theirs").exists()) as draft:
        (draft / "mine").touch()
    assert names(path) == ["theirs" if keep else "mine"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_another_process_has_just_moved_away_is_no_failure(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()

    def other_process_is_faster(source, target):
        if source == path and path.exists():
            path.rmdir()

    rename_by(monkeypatch, other_process_is_faster)
    with replace_folder(path) as draft:
        (draft / "mine").touch()
    assert names(path) == ["mine"]


def test_a_file_or_a_link_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    before = sorted(names(tmp_path))
    for name in ("file", "link", "broken"):
        with (
            pytest.raises(UserError, match=f"{name}: it is a file or a link"),
            replace_folder(tmp_path / name),
        ):
            pytest.fail("work that cannot be kept")
    with pytest.raises(UserError, match="late: it is a file or a link"), replace_folder(tmp_path / "late"):
        (tmp_path / "file").rename(tmp_path / "late")
    assert (tmp_path / "late").read_text() == "mine"
    assert sorted(names(tmp_path)) == sorted({*before, "late"} - {"file"})


def test_temporary_folders_of_killed_processes_are_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    ended_id, this_id, running_id = ended.pid, os.getpid(), os.getppid()
    removed = [
        f".a[b].{ended_id}.tmp",
        f".a[b].old.{ended_id}.tmp",
        f".a[b].{this_id}.tmp",
        f".a[b].old.{this_id}.tmp",
    ]
    kept = [
        f".a[b].{running_id}.tmp",
        f".a[b].old.{running_id}.tmp",
        f".ab.{ended_id}.tmp",
        f".a[b].x.{ended_id}.tmp",
    ]
    for name in (*removed, *kept):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    file = tmp_path / f".a[b].0{ended_id}.tmp"
    file.touch()
    with replace_folder(tmp_path / "a[b]") as draft:
        assert names(draft) == []
    assert sorted(names(tmp_path)) == sorted([*kept, file.name, "a[b]"])


def test_a_temporary_folder_is_renamed_before_its_files_are_removed(tmp_path, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    theirs = tmp_path / f".folder.{ended.pid}.tmp"
    theirs.mkdir()
    (theirs / "half").touch()
    rmtree, in_reach = shutil.rmtree, []

    def watched(folder, **options):
        in_reach.append(theirs.exists() and (folder / "half").exists())
        rmtree(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    with replace_folder(tmp_path / "folder"):
        assert not theirs.exists()
    assert in_reach
    assert not any(in_reach)
    assert names(tmp_path) == ["folder"]
