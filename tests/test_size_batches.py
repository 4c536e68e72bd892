import os
import resource
import signal

import pytest
from conftest import draw_image

import utils.images.batches as size_batches_module
from utils.errors import UserError
from utils.images.batches import HELD_BATCHES, Loading, UnreadableImage, size_batches
from utils.images.loading import EmptyBoxError, InputImage, load_pixels


def batches_of(folder, sizes, batch_size, workers=0):
    images = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.png"
        if size is None:
            path.write_bytes(b"")
        else:
            draw_image(path, number, size)
        images.append(InputImage(path))
    return images, list(size_batches(images, Loading(64, batch_size, workers)))


@pytest.mark.parametrize("workers", [0, 2])
def test_groups_images_of_one_size(tmp_path, workers):
    wide, tall = (64, 48), (48, 64)
    images, batches = batches_of(tmp_path, [wide, tall, wide, None, wide, tall], 2, workers)
    assert [batch.indices for batch in batches if not isinstance(batch, UnreadableImage)] == [
        [0, 2],
        [1, 5],
        [4],
    ]
    unreadable = [batch for batch in batches if isinstance(batch, UnreadableImage)]
    assert [(item.position, item.error.path) for item in unreadable] == [(3, images[3].path)]
    for batch in batches:
        if not isinstance(batch, UnreadableImage):
            for index, pixels in zip(batch.indices, batch.pixels, strict=True):
                assert pixels.equal(load_pixels(images[index], 64))


def test_workers_resize_as_the_calling_process_does(tmp_path):
    sizes = [(96, 72), (48, 36), (200, 150)]
    images, batches = batches_of(tmp_path, sizes, 3, workers=2)
    assert [batch.indices for batch in batches] == [[0, 1, 2]]
    for image, pixels in zip(images, batches[0].pixels, strict=True):
        assert pixels.equal(load_pixels(image, 64))


def test_holds_back_no_more_than_a_few_batches(tmp_path):
    """Images of different sizes fill no batch, but batches come out before the last image is read."""
    sizes = [(64, 8 * (number % 8 + 1)) for number in range(40)]
    images, batches = batches_of(tmp_path, sizes, 100)
    assert len(batches) == 8  # all 40 may be held back
    waiting = {images.index(image) for image in images}
    assert {index for batch in batches for index in batch.indices} == waiting

    _, batches = batches_of(tmp_path, sizes, 6)
    held = 0
    for batch in batches:
        # When a batch comes out, all images up to its last one were read.
        read = max(batch.indices) + 1
        held = max(held, read - sum(len(other.indices) for other in batches[: batches.index(batch)]))
    assert held <= HELD_BATCHES * 6 + 1
    assert sorted(index for batch in batches for index in batch.indices) == list(range(40))


@pytest.mark.parametrize("workers", [0, 2])
def test_all_images_of_a_block_come_out_before_the_next_block(tmp_path, workers):
    sizes = [(64, 48), (48, 64), None, (64, 48), (64, 48), None, (48, 64)]
    images, _ = batches_of(tmp_path, sizes, 4)
    batches = list(size_batches(images, Loading(64, 4, workers), block=3))
    indices = [[batch.position] if isinstance(batch, UnreadableImage) else batch.indices for batch in batches]
    assert indices == [[2], [0], [1], [5], [3, 4], [6]]


def test_nothing_has_no_batches():
    assert list(size_batches([], Loading(64, 4, 2))) == []


def test_a_worker_that_dies_is_an_error(tmp_path, monkeypatch):
    draw_image(tmp_path / "a.png")
    monkeypatch.setattr(size_batches_module, "load_pixels", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match=r"memory.*--workers.*--batch-size"):
        list(size_batches([InputImage(tmp_path / "a.png")], Loading(64, 1, 1)))


def test_an_error_in_a_worker_is_as_without_workers(tmp_path):
    draw_image(tmp_path / "a.png")
    for workers in (0, 1):
        with pytest.raises(EmptyBoxError, match=r"^the box 900 0 999 9 has no pixel inside \S*a.png"):
            list(size_batches([InputImage(tmp_path / "a.png", (900, 0, 999, 9))], Loading(64, 1, workers)))


@pytest.mark.slow
def test_thousands_of_waiting_images_keep_no_shared_memory(tmp_path):
    """A tensor from a worker keeps a file open until it is copied; systems allow about 1000 open files."""
    draw_image(tmp_path / "a.png", size=(8, 8))
    images = [InputImage(tmp_path / "a.png")] * 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        (batch,) = size_batches(images, Loading(8, 400, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert batch.indices == list(range(400))
