import os

import pytest
from conftest import draw_image

from utils.errors import UserError
from utils.files.outputs import check_output_file

BEGIN = b"<!DOCTYPE html>\n<page of ours>"


@pytest.mark.parametrize("content", [b"", BEGIN, BEGIN + b" and more"])
def test_what_this_program_wrote_may_be_replaced(tmp_path, content):
    (tmp_path / "page").write_bytes(content)
    check_output_file(tmp_path / "page", BEGIN)
    check_output_file(tmp_path / "new", BEGIN)
    assert (tmp_path / "page").read_bytes() == content
    (tmp_path / "page").write_bytes(b"x" + content)
    with pytest.raises(UserError, match="it was not written by this program"):
        check_output_file(tmp_path / "page", BEGIN)


@pytest.mark.parametrize("content", [b"x", b"<!DOCTYPE html>\n<p>mine", b"\x89PNG"])
def test_a_users_file_is_refused_also_behind_a_link(tmp_path, content):
    (tmp_path / "page").write_bytes(content)
    (tmp_path / "link").symlink_to("page")
    for name in ("page", "link"):
        with pytest.raises(UserError, match=f"cannot replace .*{name}: it was not written by this program"):
            check_output_file(tmp_path / name, BEGIN)


def test_images_and_folders_are_refused_and_devices_are_not(tmp_path):
    draw_image(tmp_path / "a.jpg")
    (tmp_path / "folder").mkdir()
    for name in ("a.jpg", "folder"):
        with pytest.raises(UserError, match=f"cannot replace .*{name}.*name another file"):
            check_output_file(tmp_path / name, BEGIN)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path.__class__("/dev/null"), tmp_path.__class__("/dev/stdout")):
        check_output_file(path, BEGIN)
    with pytest.raises(UserError, match="cannot write"):
        check_output_file(tmp_path / "a.jpg" / "page", BEGIN)
