import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import run_on_small_disk

from utils.files.folders import replace_folder
from utils.files.reserved_array import new_mapped_array
from utils.files.writing import new_file, replace_file

ROOT = Path(__file__).parents[1]

WRITERS = """
import sys, io, resource, torch, numpy as np
from pathlib import Path
from matplotlib.figure import Figure
from PIL import Image
from utils.files.writing import replace_file
from utils.errors import UserError

path = Path(sys.argv[1]) / "file"
if sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
figure = Figure()
figure.subplots().imshow(noise)
writers = {
    "bytes": lambda file: file.write(noise.tobytes()),
    "numpy": lambda file: np.save(file, noise),
    "numpy's zip": lambda file: np.savez(file, noise=noise),
    "torch's zip": lambda file: torch.save({"noise": torch.from_numpy(noise)}, file),
    "Matplotlib": lambda file: figure.savefig(file, format="png", dpi=400),
    "Pillow": lambda file: Image.fromarray(noise).save(file, "PNG"),
}
path.write_text("old")
for name, write in writers.items():
    try:
        with replace_file(path) as file:
            write(file)
        print(name, "was written")
    except UserError as error:
        print(name, error)
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file"]
"""


def test_a_full_disk_is_named_whatever_library_writes(tmp_path):
    done = run_on_small_disk(tmp_path, "128k", [sys.executable, "-c", WRITERS, tmp_path])
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 6), done.stderr
    for line in lines:
        assert line.endswith(f"cannot write {tmp_path / 'file'}: the disk is full")


def test_a_limit_of_the_size_of_files_is_named(tmp_path):
    command = [sys.executable, "-c", WRITERS, tmp_path, "limited"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 6), done.stderr
    for line in lines:
        assert re.search(r"cannot write .*file: the file would be larger than .*ulimit -f", line)


DRAFTS = """
import io, random, sys, tarfile
from pathlib import Path
from utils.data.mini.benchmark import MiniSettings, draw_benchmark
from utils.errors import UserError
from utils.files.folders import replace_folder
from utils.prepare.archives import unpack

if __name__ == "__main__":
    archive, target = Path(sys.argv[1]), Path(sys.argv[2], "target")
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.size = 10**6
        tar.addfile(member, io.BytesIO(random.Random(0).randbytes(member.size)))
    target.mkdir()
    (target / "old").touch()

    def unpack_there():
        with replace_folder(target) as draft:
            unpack(archive, draft, lambda name: name)

    for write in (unpack_there, lambda: draw_benchmark(target, MiniSettings(landmarks=1, distractors=0), 1)):
        try:
            write()
        except UserError as error:
            print(error)
        assert [path.name for path in target.parent.iterdir()] == ["target"]
        assert [path.name for path in target.iterdir()] == ["old"]
"""


def test_a_full_disk_leaves_what_was_there_before_an_archive_or_the_mini_benchmark(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = run_on_small_disk(disk, "64k", [sys.executable, "-c", DRAFTS, tmp_path / "a.tar", disk])
    assert (done.returncode, done.stdout) == (0, 2 * f"cannot write {disk / 'target'}: the disk is full\n"), (
        done.stderr
    )


MAP = """
import sys, numpy as np
from pathlib import Path
from utils.program.run_command import run_command
from utils.files.reserved_array import new_mapped_array

def make():
    new_mapped_array(Path(sys.argv[1]) / "map.npy", (1000, 1000), np.float16)[:] = 1

sys.exit(run_command(make))
"""


def test_space_of_a_mapped_file_is_reserved(tmp_path):
    done = run_on_small_disk(tmp_path, "1m", [sys.executable, "-c", MAP, tmp_path], then="ls")
    assert done.stderr == f"error: cannot write {tmp_path / 'map.npy'}: the disk is full\n"
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("by_one_call", [True, False])
def test_a_mapped_file_is_zeros_in_numpys_format(tmp_path, monkeypatch, by_one_call):
    if not by_one_call:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    rows = new_mapped_array(tmp_path / "map.npy", (3, 5), np.float16)
    assert not np.load(tmp_path / "map.npy").any()
    assert (tmp_path / "map.npy").stat().st_blocks * 512 >= 30
    rows[1] = 7
    rows.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), [[0] * 5, [7] * 5, [0] * 5])
    assert new_mapped_array(tmp_path / "none.npy", (0, 5), np.float16).shape == (0, 5)


def test_devices_and_pipes_are_written_as_they_are(tmp_path):
    with replace_file(Path("/dev/null")) as file:
        file.write(b"lost")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with replace_file(pipe) as file:
        file.write(b"through")
    reader.join()
    assert received == [b"through"]
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_in_order_though_it_is_a_file(tmp_path, name):
    code = (
        "from pathlib import Path; from utils.files.writing import replace_file\n"
        f"print('first')\nwith replace_file(Path('{name}')) as file: file.write(b'second\\n')\nprint('third')"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, cwd=ROOT)
    assert (tmp_path / "out").read_text() == "first\nsecond\nthird\n"


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with replace_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").readlink() == Path("file")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, os.fsdecode(b"\xe9" * 255)])
def test_the_longest_names_are_written(tmp_path, name):
    for write in (replace_file, new_file):
        with write(tmp_path / name) as file:
            file.write(b"new")
        assert (tmp_path / name).read_bytes() == b"new"
        (tmp_path / name).unlink()
    for content in ("first", "second"):
        with replace_folder(tmp_path / name) as draft:
            (draft / content).touch()
    assert [path.name for path in tmp_path.rglob("*")] == [name, "second"]
