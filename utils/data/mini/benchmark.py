"""The Mini benchmark as a whole: which images there are, their labels and queries, written to a folder."""

import io
import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.mini.facades import Facade, draw_facade
from utils.data.mini.scenes import Framing, Scene, draw_scene
from utils.errors import BadFileError, UserError
from utils.file_names import IMAGES_FOLDER, LABELS_FOLDER, MINI_SETTINGS, QUERY_SUFFIX, mini_folder
from utils.files.folders import replace_folder
from utils.files.reading import read_bytes
from utils.images.loading import Box

log = logging.getLogger(__name__)

VERSION = 1
"""Raised with every change that changes an image, so that folders drawn before are drawn again."""

VIEWS: tuple[Framing, ...] = ("whole", "whole", "whole", "whole", "whole", "part", "part", "glimpse")
"""Images of each landmark."""

QUERIES = 3
"""Each landmark's first images have query boxes."""

GOOD = 0.65
OK = 0.25
JUNK = 0.02
"""Least visible share of a landmark's front in an image that is labelled good, ok and junk for it."""

PLACES_WITHOUT_BUILDING = 4
"""Every so many-th distractor shows no building; the others show one that is no landmark."""

TRIES = 30


@dataclass(frozen=True)
class MiniSettings:
    """What the benchmark's images depend on."""

    seed: int = 0
    landmarks: int = 12
    distractors: int = 110
    version: int = VERSION


class MiniImage(NamedTuple):
    """One image to draw; a distractor has no landmark."""

    name: str
    landmark: int | None
    number: int


class DrawnImage(NamedTuple):
    """What the labels need to know of a drawn image."""

    image: MiniImage
    visible: float
    box: Box


def prepare_mini(datasets_dir: Path, seed: int) -> Path:
    """Draws the benchmark of a seed into its folder unless it is there already.

    A folder that was drawn with other settings is replaced; one that was not drawn at all is left alone.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written, or a process that draws was killed.
    """
    folder, settings = mini_folder(datasets_dir, seed), MiniSettings(seed=seed)
    record = _read_record(folder)
    if record == _record(settings):
        return folder
    if record is None and folder.is_dir():
        log.warning("note: %s was not drawn by this program and is used as it is", folder)
        return folder
    log.info("drawing the Mini benchmark into %s", folder)
    with replace_folder(folder, keep=lambda: _read_record(folder) == _record(settings)) as draft:
        _draw(draft, settings)
    return folder


def draw_benchmark(folder: Path, settings: MiniSettings, workers: int | None = None) -> None:
    """Draws the benchmark into a folder, in parallel; the folder appears when it is complete.

    The images only depend on the settings, each by a random generator of its own.

    Args:
        folder: replaced if it exists.
        settings: the seed and the counts.
        workers: processes; one a core if not given.

    Raises:
        UserError: the folder cannot be written, or a process that draws was killed.
    """
    with replace_folder(folder) as draft:
        _draw(draft, settings, workers)


def _draw(folder: Path, settings: MiniSettings, workers: int | None = None) -> None:
    """Fills an empty folder."""
    images, labels = folder / IMAGES_FOLDER, folder / LABELS_FOLDER
    images.mkdir()
    labels.mkdir()
    drawn = _draw_images(images, settings, workers or os.cpu_count() or 1)
    for landmark in range(settings.landmarks):
        _write_labels(labels, [item for item in drawn if item.image.landmark == landmark])
    (folder / MINI_SETTINGS).write_bytes(_record(settings))


def _draw_images(folder: Path, settings: MiniSettings, workers: int) -> list[DrawnImage]:
    draw = partial(_draw_image, settings.seed, folder)
    try:
        with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
            return list(pool.map(draw, list(_images(settings)), chunksize=len(VIEWS)))
    except BrokenProcessPool as error:
        raise UserError(
            "cannot draw the Mini benchmark: a process that drew was killed, "
            "perhaps for want of memory: run it again"
        ) from error


def _end_with_parent() -> None:
    """Lets a process that draws end when the one that began it is killed: it would wait for work for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _record(settings: MiniSettings) -> bytes:
    return (json.dumps(asdict(settings), indent=2) + "\n").encode()


def _read_record(folder: Path) -> bytes | None:
    """What a folder tells of its settings, if it does."""
    try:
        return read_bytes(folder / MINI_SETTINGS)
    except (OSError, BadFileError):
        return None


def _images(settings: MiniSettings) -> Iterator[MiniImage]:
    for landmark in range(settings.landmarks):
        for view in range(len(VIEWS)):
            yield MiniImage(f"landmark{landmark:02d}_{view:06d}", landmark, view)
    for number in range(settings.distractors):
        yield MiniImage(f"distractor_{number:06d}", None, number)


def _draw_image(seed: int, folder: Path, image: MiniImage) -> DrawnImage:
    place = 0 if image.landmark is None else image.landmark + 1
    rng = np.random.default_rng([seed, 1, place, image.number])
    if image.landmark is not None:
        scene = _draw_view(rng, _landmark(seed, image.landmark), image.number)
    elif image.number % PLACES_WITHOUT_BUILDING == 0:
        scene = draw_scene(rng, None, "whole")
    else:
        scene = draw_scene(rng, draw_facade(rng), "whole" if rng.random() < 0.7 else "part")
    file = io.BytesIO()  # written at once: Pillow tells of a full disk by errors of its own
    scene.image.save(file, "JPEG", quality=int(rng.integers(30, 93)))
    (folder / f"{image.name}.jpg").write_bytes(file.getvalue())
    return DrawnImage(image, scene.visible, scene.box)


def _draw_view(rng: np.random.Generator, facade: Facade, view: int) -> Scene:
    """A view of a landmark; one that is to have a query box is drawn again until it is a good image."""
    for _ in range(TRIES):
        scene = draw_scene(rng, facade, VIEWS[view])
        if view >= QUERIES or scene.visible >= GOOD:
            break
    return scene


@lru_cache(maxsize=4)
def _landmark(seed: int, landmark: int) -> Facade:
    return draw_facade(np.random.default_rng([seed, 0, landmark]))


def _write_labels(folder: Path, views: list[DrawnImage]) -> None:
    """Writes the query, good, ok and junk files of a landmark's queries."""
    labels = {
        "good": [view.image.name for view in views if view.visible >= GOOD],
        "ok": [view.image.name for view in views if OK <= view.visible < GOOD],
        "junk": [view.image.name for view in views if JUNK <= view.visible < OK],
    }
    for number, view in enumerate(views[:QUERIES], start=1):
        query = f"{view.image.name.split('_')[0]}_{number}"
        box = " ".join(f"{side:.1f}" for side in view.box)
        (folder / f"{query}{QUERY_SUFFIX}").write_text(f"{view.image.name} {box}\n")
        for label, names in labels.items():
            (folder / f"{query}_{label}.txt").write_text("".join(f"{name}\n" for name in names))
