"""Worker processes that are killed, asked to stop, or left by a killed parent."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
from conftest import EMBEDDED, draw_image, write_query
from torch.utils.data import Dataset

import LearningPCA_landmark
import Measure_OxfordParis
import Search_Images
import Training_ImageNet
from utils.data.imagenet import read_wnids
from utils.images import loading
from utils.images.workers import worker_items
from utils.prepare import verify
from utils.program.outside_errors import WORKER_DIED
from utils.program.run_command import run_command
from utils.program.signals import leave_signals_to_parent, stopping_blocked
from utils.training import crops

TINY = ["--backbone", "efficientnet_lite0", "--device", "cpu", "--workers", "2"]
TRAINING = ["--datasets-dir", "data", "--crop", "64", "--resize", "68", "72", "--iterations", "4"]
PCA = ["--datasets-dir", "data", "--S", "128", "--L", "2", "--min-side", "64", "--components", "3"]


@pytest.fixture
def data(tmp_path):
    """A folder of images for an evaluation, a training, a PCA and an index."""
    folder = tmp_path / "data"
    images = folder / "Tiny" / "jpg"
    for path in (images, folder / "Tiny" / "lab", folder / "Landmark" / "train"):
        path.mkdir(parents=True)
    for number in range(8):
        draw_image(images / f"{number}.png", number, (128, 96))
    write_query(folder / "Tiny", "q_1", "0 0 0 40 40", good="1")
    (folder / "Landmark" / "train" / "data").symlink_to(images)
    for part in (f"train/data/{read_wnids()[0]}", "val/data"):
        (folder / "ImageNet" / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / "ImageNet" / part).symlink_to(images)
    (folder / "ImageNet" / "val" / "val.txt").write_text("".join(f"{n}.png 0\n" for n in range(8)))
    return folder


JOBS = {
    "evaluation": (
        Measure_OxfordParis,
        ["--dataset", "Tiny", "--datasets-dir", "data", "--S", "64", *EMBEDDED, "--output", "out"],
    ),
    "training": (
        Training_ImageNet,
        [*TRAINING, "--output", "out"],
    ),
    "precomputed training": (
        Training_ImageNet,
        [*TRAINING, "--output", "out", "--precompute", "features.npy"],
    ),
    "PCA": (
        LearningPCA_landmark,
        [*PCA, "--output", "out"],
    ),
    "index": (Search_Images, ["index", "data/Tiny/jpg", "--S", "64", "--index", "out", *EMBEDDED]),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_killed_worker_is_one_line_in_each_job(data, tmp_path, monkeypatch, capsys, job):
    script, words = JOBS[job]
    monkeypatch.chdir(tmp_path)
    read_image = loading.read_image

    def kill_or_read(path):
        if path.stem == "5" and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path)

    for module in (loading, crops):
        monkeypatch.setattr(module, "read_image", kill_or_read)
    assert run_command(lambda: script.command_line([*words, *TINY])) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f"error: {WORKER_DIED}"
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_killed_worker_of_verify_is_one_line(data, monkeypatch, capsys):
    monkeypatch.setattr(verify, "read_image", lambda path: os.kill(os.getpid(), signal.SIGKILL))
    assert run_command(lambda: verify.verify(data / "Tiny")) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {WORKER_DIED}"


class Signalled(Dataset):
    """A data set whose workers send a signal to themselves."""

    def __init__(self, number):
        self.number = number

    def __getitem__(self, item):
        os.kill(os.getpid(), self.number)
        return item


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_go_on_after_a_signal_that_is_for_their_parent(number):
    assert list(worker_items(Signalled(number), range(6), None, 2, 1)) == list(range(6))


def wait(started, held):
    leave_signals_to_parent()
    started.send(os.getpid())
    time.sleep(600)


def start_and_wait(started, held):
    with stopping_blocked():
        multiprocessing.get_context("fork").Process(target=wait, args=(started, held)).start()
    time.sleep(600)


def test_a_worker_ends_when_its_parent_asks_for_it():
    context = multiprocessing.get_context("fork")
    ready, started = context.Pipe(duplex=False)
    with stopping_blocked():
        worker = context.Process(target=wait, args=(started, None))
        worker.start()
    assert ready.poll(60)
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0  # as torch expects


def test_a_worker_ends_when_its_parent_is_killed():
    context = multiprocessing.get_context("fork")
    ready, started = context.Pipe(duplex=False)
    alive, held = context.Pipe(duplex=False)
    parent = context.Process(target=start_and_wait, args=(started, held))
    parent.start()
    held.close()
    assert ready.poll(60)
    worker = ready.recv()
    parent.kill()
    try:
        assert alive.poll(60)  # at its end: no process holds the other end
    except AssertionError:
        os.kill(worker, signal.SIGKILL)
        raise
    finally:
        parent.join()


def send_to_itself(number):
    os.kill(os.getpid(), number)
    return number


def test_the_processes_of_a_pool_go_on_after_a_signal_that_is_for_their_parent():
    numbers = [signal.SIGTERM, signal.SIGINT] * 3
    with ProcessPoolExecutor(2, initializer=leave_signals_to_parent) as pool:
        with stopping_blocked():
            answers = pool.map(send_to_itself, numbers)
        assert list(answers) == numbers
