"""Average precision as VGG's program `compute_ap` defines it, computed here or by that program itself."""

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.scoring.precision import precision_around

BINARY_TIMEOUT = 60.0
"""Seconds after which a program that should take a tenth of one is given up."""


def compute_ap(
    ranking: Sequence[str], good: Collection[str], ok: Collection[str], junk: Collection[str]
) -> float:
    """Average precision of one query's ranking.

    Junk images are taken out of the ranking, good and ok ones are positives, and an image that is both counts
    as junk. The area under the precision-recall curve is summed by trapezoids from recall 0, precision 1, in
    float32 as VGG's program does. Recall is over all listed positives, also those that are not in the ranking
    or are junk as well.

    Args:
        ranking: image names, the most similar first.
        good: names of the images that show the object well.
        ok: names of the images that show more than a quarter of it.
        junk: names of the images that show less, neither right nor wrong.

    Returns:
        0..1; NaN if no positive is listed, where recall, and so the program's output, is 0 / 0.
    """
    positives = set(good) | set(ok)
    junk = set(junk)
    kept = (name for name in ranking if name not in junk)
    indices = [index for index, name in enumerate(kept) if name in positives]
    return average_precision(np.array(indices, np.int64), len(positives))


def average_precision(indices: np.ndarray, positives: int) -> float:
    """Return the average precision of a ranking in which positives have these indices.

    Args:
        indices: (K,) indices of the positives in the ranking without junk, from 0, rising.
        positives: how many there are to find.

    Returns:
        0..1; NaN if there is nothing to find.
    """
    if positives == 0:
        return float("nan")
    # Each intermediate has the type that it has in VGG's C++: recall, precision and the sum are float,
    # divisions by a double literal and the product with one are double. The sum of the revisited
    # evaluation is double throughout, so it is a function of its own.
    area = old_recall = np.float32(0)
    corners = zip(*(values.astype(np.float32) for values in precision_around(indices)), strict=True)
    for found, (before, precision) in enumerate(corners, start=1):
        recall = np.float32(found) / np.float32(positives)
        area = np.float32(float(area) + float(recall - old_recall) * (float(before + precision) / 2))
        old_recall = recall
    return float(area)


def check_program(binary: Path) -> None:
    """Checks that a program is there and may be run.

    Raises:
        UserError: it is not, or may not.
    """
    if not binary.is_file():
        raise UserError(f"no program at {binary}")
    if not os.access(binary, os.X_OK):
        raise UserError(f"{binary} is no program that may be run: compile compute_ap.cpp, or chmod +x it")


def write_label_files(
    folder: Path, query: str, good: Iterable[str], ok: Iterable[str], junk: Iterable[str]
) -> Path:
    """Write a query's labels as VGG's program reads them: one image name per line, and nothing else.

    The program takes each line as it is, with carriage returns and blanks.

    Args:
        folder: folder to write to.
        query: name of the query.
        good: names of the images labelled good.
        ok: names of those labelled ok.
        junk: names of those labelled junk.

    Returns:
        The path that the files have in common, up to `_good.txt`, `_ok.txt` and `_junk.txt`.
    """
    for label, names in (("good", good), ("ok", ok), ("junk", junk)):
        text = "".join(f"{name}\n" for name in sorted(names))
        (folder / f"{query}_{label}.txt").write_bytes(text.encode())
    return folder / query


def compute_ap_by_binary(binary: Path, query: Path, ranking_file: Path) -> float:
    """Average precision as a compiled `compute_ap` prints it.

    Args:
        binary: VGG's program, compiled.
        query: the path of the query's label files up to `_good.txt`, `_ok.txt` and `_junk.txt`.
        ranking_file: image names, one a line.

    Returns:
        0..1, to the six digits that the program prints; NaN if it prints that.

    Raises:
        UserError: the program cannot be run, fails, or prints no number from 0 to 1.
    """
    try:
        done = subprocess.run(
            [binary.absolute(), query, ranking_file],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=BINARY_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{binary} cannot be run: {error}") from error
    if done.returncode:
        raise UserError(f"{binary} failed on query {query.name} with status {done.returncode}: {done.stderr}")
    try:
        precision = float(done.stdout)
    except ValueError:
        precision = -1.0
    if precision < 0 or precision > 1:  # NaN is neither
        raise UserError(f"{binary} printed {done.stdout!r} for query {query.name}, not a number from 0 to 1")
    return precision
