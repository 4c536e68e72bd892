import errno
import os

import pytest

from utils.errors import UserError
from utils.files.writing import check_writable, make_folder, new_file, replace_file


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replace_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replace_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"cannot write .*the disk is full"), replace_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("use", [check_writable, make_folder])
def test_a_folder_that_cannot_be_made_is_reported(tmp_path, use):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot write"):
            use(path)


def test_checking_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert names(tmp_path) == []
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / "file" / "b")
    assert sorted(names(tmp_path)) == ["a", "file"]


def test_a_new_file_appears_complete_and_does_not_replace_another(tmp_path):
    path = tmp_path / "file"
    with new_file(path) as file:
        file.write(b"first")
        assert not path.exists()
    with new_file(path) as file:
        file.write(b"second")
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]
