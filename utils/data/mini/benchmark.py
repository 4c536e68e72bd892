"""The Mini benchmark: its images, labels and queries, written to a folder."""

import io
import json
import logging
import os
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
from utils.program.signals import leave_signals_to_parent, stopping_blocked

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the drawing: a change of any image increases it, and older folders are drawn again."""

VIEWS: tuple[Framing, ...] = ("full", "full", "full", "full", "full", "part", "part", "glimpse")
"""Framing of each image of a landmark."""

QUERIES = 3
"""The number of queries per landmark: its first images, which get a query box."""

GOOD = 0.65
OK = 0.25
JUNK = 0.02
"""Minimum visible share of the front of a landmark in an image with this label."""

DISTRACTORS_PER_EMPTY_SCENE = 4
"""One in this many distractors shows no building; the rest show a building that is not a landmark."""

DRAWING_ATTEMPTS = 30


@dataclass(frozen=True)
class MiniSettings:
    """Settings that the images of the benchmark depend on."""

    seed: int = 0
    landmarks: int = 12
    distractors: int = 110
    version: int = VERSION


class MiniImage(NamedTuple):
    """An image to draw; the landmark of a distractor is None."""

    name: str
    landmark: int | None
    number: int


class DrawnImage(NamedTuple):
    """A drawn image, with the visible share of its landmark and the box around the visible part."""

    image: MiniImage
    visible: float
    box: Box


def prepare_mini(datasets_dir: Path, seed: int) -> Path:
    """Draw the benchmark of a seed into its folder, unless it is already drawn.

    A folder drawn with other settings is replaced. A folder that this program did not draw is left unchanged.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written, or a drawing process was killed.
    """
    folder, settings = mini_folder(datasets_dir, seed), MiniSettings(seed=seed)
    drawn_with = _read_settings(folder)
    if drawn_with == _encode(settings):
        return folder
    if drawn_with is None and folder.is_dir():
        log.warning("note: %s was not drawn by this program and is used as it is", folder)
        return folder
    log.info("drawing the Mini benchmark into %s", folder)
    with replace_folder(folder, keep=lambda: _read_settings(folder) == _encode(settings)) as draft:
        _draw(draft, settings)
    return folder


def draw_benchmark(folder: Path, settings: MiniSettings, workers: int | None = None) -> None:
    """Draw the benchmark into a folder, in parallel; the folder appears when it is complete.

    Each image has its own random generator, so images depend only on the settings.

    Args:
        folder: the output folder, replaced if it exists.
        settings: the seed and the counts.
        workers: the number of processes; one per core if None.

    Raises:
        UserError: the folder cannot be written, or a drawing process was killed.
    """
    with replace_folder(folder) as draft:
        _draw(draft, settings, workers)


def _draw(folder: Path, settings: MiniSettings, workers: int | None = None) -> None:
    """Draw the benchmark into an empty folder.

    The folder is a draft, whose errors, such as a full disk, `replace_folder` reports: its files need no
    temporary names.
    """
    images, labels = folder / IMAGES_FOLDER, folder / LABELS_FOLDER
    images.mkdir()
    labels.mkdir()
    drawn = _draw_images(images, settings, workers or os.cpu_count() or 1)
    for landmark in range(settings.landmarks):
        _write_labels(labels, [item for item in drawn if item.image.landmark == landmark])
    (folder / MINI_SETTINGS).write_bytes(_encode(settings))


def _draw_images(folder: Path, settings: MiniSettings, workers: int) -> list[DrawnImage]:
    draw = partial(_draw_image, settings.seed, folder)
    try:
        with ProcessPoolExecutor(workers, initializer=leave_signals_to_parent) as pool:
            with stopping_blocked():
                drawn = pool.map(draw, list(_images(settings)), chunksize=len(VIEWS))
            return list(drawn)
    except BrokenProcessPool as error:
        raise UserError(
            "cannot draw the Mini benchmark: a drawing process was killed, "
            "perhaps for lack of memory: run it again"
        ) from error


def _encode(settings: MiniSettings) -> bytes:
    return (json.dumps(asdict(settings), indent=2) + "\n").encode()


def _read_settings(folder: Path) -> bytes | None:
    """Read the settings that a folder was drawn with; None if it has none."""
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
    group = 0 if image.landmark is None else image.landmark + 1
    rng = np.random.default_rng([seed, 1, group, image.number])
    if image.landmark is not None:
        scene = _draw_view(rng, _landmark(seed, image.landmark), image.number)
    elif image.number % DISTRACTORS_PER_EMPTY_SCENE == 0:
        scene = draw_scene(rng, None, "full")
    else:
        scene = draw_scene(rng, draw_facade(rng), "full" if rng.random() < 0.7 else "part")
    file = io.BytesIO()  # encoded in memory: the errors that Pillow raises on a full disk do not name it
    scene.image.save(file, "JPEG", quality=int(rng.integers(30, 93)))
    (folder / f"{image.name}.jpg").write_bytes(file.getvalue())
    return DrawnImage(image, scene.visible, scene.box)


def _draw_view(rng: np.random.Generator, facade: Facade, view: int) -> Scene:
    """Draw a view of a landmark; draw the view of a query again until it counts as good."""
    for _ in range(DRAWING_ATTEMPTS):
        scene = draw_scene(rng, facade, VIEWS[view])
        if view >= QUERIES or scene.visible >= GOOD:
            break
    return scene


@lru_cache(maxsize=4)
def _landmark(seed: int, landmark: int) -> Facade:
    return draw_facade(np.random.default_rng([seed, 0, landmark]))


def _write_labels(folder: Path, views: list[DrawnImage]) -> None:
    """Write the query, good, ok and junk files of the queries of a landmark."""
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
