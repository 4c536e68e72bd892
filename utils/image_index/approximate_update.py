"""Building and updating of the approximate index of photographs.

The centres of the lists are computed once, and again if the number of images has changed much. Images that
came are added, images that went are removed. The number of lists that a query reads is chosen by the recall
of a sample of queries. New files are written beside the old ones; the record is replaced last.
"""

import logging
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.descriptors.rows import Rows, row_blocks
from utils.errors import UserError
from utils.file_names import APPROXIMATE_FOLDER, APPROXIMATE_RECORD, CATALOGUE
from utils.files.arrays import map_array
from utils.files.records import write_json
from utils.files.writing import make_folder, user_error_if_unwritable
from utils.image_index.approximate_index import (
    FEWEST_CANDIDATES,
    FORMAT,
    ApproximateRecord,
    digest_of_files,
    generation_files,
    image_ids,
    read_record,
)
from utils.search.approximate import load_faiss
from utils.search.exact import top_rows

log = logging.getLogger(__name__)

FEWEST_IMAGES = 1000
"""Number of images below which an exact search is as fast."""

LISTS_PER_ROOT = 2
"""Inverted lists per square root of the number of images."""

VECTORS_PER_LIST = 40
"""Training vectors per list; FAISS recommends at least 39."""

ITERATIONS = 10
"""Iterations of k-means; more do not change the recall."""

GROWTH = 4
"""Factor of the number of images from which the centres are computed again."""

SAMPLE = 100
"""Number of queries, drawn from the images, by which recall is measured."""

MATCHES = 10
"""Number of matches by which recall is measured."""

RECALL = 0.995
"""Recall for which the number of lists to read is chosen."""


def update_approximate(index: Path, keys: Sequence[str], rows: Rows, settings: dict[str, object]) -> None:
    """Build the approximate index of an index, or update the one that exists.

    An index of few images has none: the one that it had when it was larger is removed.

    Args:
        index: folder of the index, whose lock this process holds.
        keys: keys of the images of the index.
        rows: descriptors of the images, (N, D).
        settings: settings of the descriptors.

    Raises:
        UserError: FAISS is not installed, or the files cannot be written.
    """
    load_faiss()
    if len(keys) < FEWEST_IMAGES:
        log.warning("note: all images are compared, since there are fewer than %d", FEWEST_IMAGES)
        if (index / APPROXIMATE_FOLDER).exists():
            with user_error_if_unwritable(index / APPROXIMATE_FOLDER):
                shutil.rmtree(index / APPROXIMATE_FOLDER)
        return
    record = read_record(index, settings)
    catalogue = digest_of_files([index / CATALOGUE])
    ids = image_ids(keys)
    if record is not None and record["catalogue"] == catalogue:
        _remove_others(index, record["generation"])
        return
    if record is not None and 1 / GROWTH <= len(keys) / record["trained_on"] <= GROWTH:
        lists, trained_on = _updated(index, record, ids, rows), record["trained_on"]
    else:
        lists, trained_on = _built(ids, rows), len(keys)
    probes, recall = choose_probes(lists, ids, rows)
    generation = secrets.token_hex(4)
    files = _write(index, generation, lists, ids)
    new = ApproximateRecord(
        format=FORMAT,
        settings=settings,  # type: ignore[typeddict-item]  # JSON values
        generation=generation,
        digest=digest_of_files(files),
        catalogue=catalogue,
        trained_on=trained_on,
        lists=lists.nlist,
        probes=probes,
        recall=recall,
    )
    write_json(index / APPROXIMATE_FOLDER / APPROXIMATE_RECORD, new)
    _remove_others(index, generation)


def choose_probes(lists: Any, ids: np.ndarray, rows: Rows) -> tuple[int, float]:  # noqa: ANN401
    """Return the number of lists to read for the wanted recall, and the recall of a sample of queries.

    The queries are images of the index. The image itself does not count as a match.

    Args:
        lists: the inverted lists.
        ids: (N,), the id of each image in the lists.
        rows: descriptors of the images, (N, D).
    """
    drawn = np.sort(np.random.default_rng(0).choice(len(ids), min(SAMPLE, len(ids)), replace=False))
    queries = rows[drawn].astype(np.float32)
    exact = ids[top_rows(queries, rows, MATCHES + 1)[0]]
    probes = 1
    while True:
        lists.nprobe = probes
        _, found = lists.search(queries, FEWEST_CANDIDATES)
        shares = [
            np.isin(np.setdiff1d(wanted, [itself])[:MATCHES], row).mean()
            for wanted, itself, row in zip(exact, ids[drawn], found, strict=True)
        ]
        recall = float(np.mean(shares))
        if recall >= RECALL or probes >= lists.nlist:
            return probes, recall
        probes = min(2 * probes, lists.nlist)


def _built(ids: np.ndarray, rows: Rows) -> Any:  # noqa: ANN401
    """Return inverted lists of all images."""
    faiss = load_faiss()
    count, width = rows.shape
    number = max(min(round(LISTS_PER_ROOT * count**0.5), count // VECTORS_PER_LIST), 1)
    coarse = faiss.IndexFlatIP(width)
    lists = faiss.IndexIVFScalarQuantizer(
        coarse, width, number, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    lists.cp.niter = ITERATIONS
    drawn = np.sort(np.random.default_rng(0).permutation(count)[: VECTORS_PER_LIST * number])
    lists.train(np.ascontiguousarray(rows[drawn], np.float32))
    for indices, block in row_blocks(rows):
        lists.add_with_ids(np.ascontiguousarray(block, np.float32), ids[indices])
    return lists


def _updated(index: Path, record: ApproximateRecord, ids: np.ndarray, rows: Rows) -> Any:  # noqa: ANN401
    """Return the saved lists with the images that came and without the images that went."""
    faiss = load_faiss()
    lists_path, ids_path, _ = generation_files(index, record["generation"])
    lists = faiss.read_index(str(lists_path))
    listed = map_array(ids_path, (np.int64,), (None,))
    lists.remove_ids(np.setdiff1d(listed, ids))
    added = np.flatnonzero(~np.isin(ids, listed))
    for start in range(0, len(added), 4096):
        block = added[start : start + 4096]
        lists.add_with_ids(np.ascontiguousarray(rows[block], np.float32), ids[block])
    return lists


def _write(index: Path, generation: str, lists: Any, ids: np.ndarray) -> Sequence[Path]:  # noqa: ANN401
    """Write the files of an approximate index, except for its record, and return their paths."""
    make_folder(index / APPROXIMATE_FOLDER)
    files = lists_path, ids_path, order_path = generation_files(index, generation)
    order = np.argsort(ids, kind="stable")
    with user_error_if_unwritable(lists_path):
        try:
            load_faiss().write_index(lists, str(lists_path))
        except RuntimeError as error:  # FAISS quotes its source before the reason of the system
            raise UserError(f"cannot write {lists_path}: {str(error).rpartition('failed: ')[2]}") from error
        np.save(ids_path, ids[order])
        np.save(order_path, order)
    return files


def _remove_others(index: Path, generation: str) -> None:
    """Delete the files of earlier generations and of killed processes."""
    kept = {path.name for path in generation_files(index, generation)} | {APPROXIMATE_RECORD}
    with user_error_if_unwritable(index / APPROXIMATE_FOLDER):
        for path in (index / APPROXIMATE_FOLDER).iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)
