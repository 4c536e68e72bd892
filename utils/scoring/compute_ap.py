"""Average precision as in VGG's program `compute_ap`, computed in Python or by the program."""

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.scoring.precision import precision_around

BINARY_TIMEOUT = 60.0
"""Seconds before a run of the program, which normally takes a tenth of a second, is aborted."""


def compute_ap(
    ranking: Sequence[str], good: Collection[str], ok: Collection[str], junk: Collection[str]
) -> float:
    """Return the average precision of the ranking of one query.

    Junk images are removed from the ranking. Good and ok images are positives, unless they are also junk. The
    area under the precision-recall curve is summed by trapezoids from recall 0 and precision 1, in float32,
    as in VGG's program. Recall is relative to all listed positives, including positives that are not in the
    ranking or are also junk.

    Args:
        ranking: image names, the most similar first.
        good: names of the images that show the object well.
        ok: names of the images that show more than a quarter of the object.
        junk: names of the images that show less of the object; they are neither right nor wrong.

    Returns:
        0..1; NaN if no positive is listed, as from the program, because recall is 0 / 0.
    """
    positives = set(good) | set(ok)
    junk = set(junk)
    kept = (name for name in ranking if name not in junk)
    ranks = [rank for rank, name in enumerate(kept) if name in positives]
    return average_precision(np.array(ranks, np.int64), len(positives))


def average_precision(ranks: np.ndarray, positives: int) -> float:
    """Return the average precision for the ranks of the positives.

    Args:
        ranks: (K,) ranks of the positives in the ranking without junk, from 0, rising.
        positives: number of all positives.

    Returns:
        0..1; NaN if there are no positives.
    """
    if positives == 0:
        return float("nan")
    # Intermediate values have the same types as in VGG's C++: recall, precision and the sum are float.
    # Divisions by and products with a double literal are double. The revisited protocol sums in double.
    area = old_recall = np.float32(0)
    corners = zip(*(values.astype(np.float32) for values in precision_around(ranks)), strict=True)
    for retrieved, (before, precision) in enumerate(corners, start=1):
        recall = np.float32(retrieved) / np.float32(positives)
        area = np.float32(float(area) + float(recall - old_recall) * (float(before + precision) / 2))
        old_recall = recall
    return float(area)


def check_program(binary: Path) -> None:
    """Check that a program exists and is executable.

    Raises:
        UserError: the program does not exist or is not executable.
    """
    if not binary.is_file():
        raise UserError(f"no program at {binary}")
    if not os.access(binary, os.X_OK):
        raise UserError(f"{binary} is not an executable program: compile compute_ap.cpp, or chmod +x it")


def write_label_files(
    folder: Path, query: str, good: Iterable[str], ok: Iterable[str], junk: Iterable[str]
) -> Path:
    """Write the label files of a query for VGG's program: one image name per line.

    The program does not strip carriage returns and blanks, so the files contain none.

    Args:
        folder: folder to write to.
        query: name of the query.
        good: names of the images labelled good.
        ok: names of the images labelled ok.
        junk: names of the images labelled junk.

    Returns:
        The common path of the files, without `_good.txt`, `_ok.txt` and `_junk.txt`.
    """
    for label, names in (("good", good), ("ok", ok), ("junk", junk)):
        text = "".join(f"{name}\n" for name in sorted(names))
        (folder / f"{query}_{label}.txt").write_bytes(text.encode())
    return folder / query


def compute_ap_by_binary(binary: Path, query: Path, ranking_file: Path) -> float:
    """Return the average precision that a compiled `compute_ap` prints.

    Args:
        binary: VGG's program, compiled.
        query: common path of the query's label files, without `_good.txt`, `_ok.txt` and `_junk.txt`.
        ranking_file: file with one image name per line.

    Returns:
        0..1, to the six digits that the program prints; NaN if the program prints NaN.

    Raises:
        UserError: the program cannot be run, fails, or prints neither NaN nor a number from 0 to 1.
    """
    try:
        process = subprocess.run(
            [binary.absolute(), query, ranking_file],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=BINARY_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{binary} cannot be run: {error}") from error
    if process.returncode:
        raise UserError(
            f"{binary} failed on query {query.name} with status {process.returncode}: {process.stderr}"
        )
    try:
        precision = float(process.stdout)
    except ValueError:
        precision = -1.0
    if precision < 0 or precision > 1:  # false for NaN
        raise UserError(
            f"{binary} printed {process.stdout!r} for query {query.name}, not a number from 0 to 1"
        )
    return precision
