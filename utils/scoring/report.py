"""The report of an evaluation: printed scores and the files of the output folder."""

import json
import math
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
import torchvision

from utils.data.retrieval_dataset import RetrievalDataset
from utils.descriptors.describe import Descriptors
from utils.errors import UserError
from utils.file_names import DESCRIPTORS, RANKING_SUFFIX, RANKINGS_FOLDER, RESULTS, RUN_FILE, SCORE_TABLE
from utils.files.entries import replace_entries
from utils.files.outputs import check_replaceable
from utils.files.writing import check_writable, make_folder, replace_file
from utils.scoring.run_files import ScoredRanking, run_lines
from utils.scoring.score_table import write_score_table
from utils.scoring.scores import Scores
from utils.search.run_searches import EXPANDED, PLAIN

WRITTEN = (DESCRIPTORS, RANKINGS_FOLDER, RUN_FILE, SCORE_TABLE, RESULTS)
"""Files of an evaluation; the last one exists only while all of them belong together."""

RESULTS_BEGIN = b'{\n  "settings": {'
"""First bytes of results.json, which identify files of this program."""


def format_scores(scores: Mapping[str, Scores]) -> str:
    """Return the scores of all searches as text, with a title line before all except the plain search."""
    parts = []
    for search, search_scores in scores.items():
        parts += [] if search == PLAIN else [f"{search.capitalize()}..."]
        parts.append(search_scores.format())
    return "\n".join(parts)


def scores_for_json(scores: Mapping[str, Scores]) -> dict[str, object]:
    """Return the scores of all searches in the form of results.json; the plain search has no key suffix."""
    values: dict[str, object] = {}
    for search, search_scores in scores.items():
        values |= search_scores.for_json("" if search == PLAIN else "_" + search.replace(" ", "_"))
    if not scores[PLAIN].has_protocols and EXPANDED not in scores:
        values |= {"mAP_query_expansion": None, "AP_query_expansion": None}
    return values


@contextmanager
def new_results(output: Path) -> Iterator[Path]:
    """Create a temporary folder whose results replace those of an earlier evaluation at the end of the block.

    Args:
        output: folder of the results; other files in it are kept.

    Yields:
        The temporary folder.

    Raises:
        UserError: a file cannot be written; the earlier results are then unchanged.
    """
    with replace_entries(output, WRITTEN) as draft:
        yield draft
        earlier, rankings = output / RANKINGS_FOLDER, draft / RANKINGS_FOLDER
        for path in earlier.iterdir() if earlier.is_dir() else ():
            if path.suffix != RANKING_SUFFIX and path.is_file():  # a file of the user
                shutil.copy2(path, rankings / path.name)


def check_output(output: Path) -> None:
    """Check that results can be written to a folder and replace no files of the user.

    Call this function before long computations.

    Raises:
        UserError: the folder is not writable, or results would replace other files.
    """
    check_writable(output)
    check_replaceable(output / RESULTS, RESULTS_BEGIN)
    for name in WRITTEN[:-1]:
        path, is_kind = output / name, Path.is_dir if name == RANKINGS_FOLDER else Path.is_file
        if os.path.lexists(path) and (path.is_symlink() or not is_kind(path)):
            raise UserError(f"{path} was not written by this program: name another --output")


class DescriptorTable(NamedTuple):
    """Descriptors of an evaluation with their names."""

    names: Sequence[str]
    descriptors: np.ndarray
    """(N, D)."""
    query_names: Sequence[str]
    query_descriptors: np.ndarray
    """(Q, D)."""


def descriptor_table(
    data: RetrievalDataset, names: Sequence[str], queries: Descriptors, database: Descriptors
) -> DescriptorTable:
    """Return the descriptors of queries and images with their names."""
    query_names = [query.name for query in data.queries]
    return DescriptorTable(names, database.rows[:], query_names, queries.rows[:])


def write_output(
    output: Path,
    results: Mapping[str, object],
    scores: Mapping[str, Mapping[str, Scores]],
    rankings: Iterable[ScoredRanking] | None,
    descriptors: DescriptorTable | None,
) -> None:
    """Write the files of an evaluation. They replace earlier files once all of them are complete.

    Args:
        output: folder of the results.
        results: contents of results.json.
        scores: scores per system, then per search.
        rankings: ranking of each query; None to write no rankings.
        descriptors: contents of descriptors.npz; None to write no such file.

    Raises:
        UserError: a file cannot be written.
    """
    with new_results(output) as draft:
        if descriptors is not None:
            write_descriptors(draft, *descriptors)
        if rankings is not None:
            write_rankings(draft, rankings)
        write_score_table(draft / SCORE_TABLE, scores)
        write_results(draft, results)


def write_results(output: Path, results: Mapping[str, object]) -> None:
    """Write results.json, with null for numbers that are not finite."""
    with replace_file(output / RESULTS) as file:
        file.write(json.dumps(_for_json(results), indent=2, allow_nan=False).encode() + b"\n")


def write_descriptors(
    output: Path,
    names: Sequence[str],
    descriptors: np.ndarray,
    query_names: Sequence[str],
    query_descriptors: np.ndarray,
) -> None:
    """Write descriptors.npz: names as text, descriptors (N, D) and (Q, D) as float32, nothing pickled."""
    with replace_file(output / DESCRIPTORS) as file:
        np.savez(
            file,
            names=np.array(names, dtype=np.str_),
            descriptors=descriptors.astype(np.float32),
            query_names=np.array(query_names, dtype=np.str_),
            query_descriptors=query_descriptors.astype(np.float32),
        )


def write_rankings(output: Path, rankings: Iterable[ScoredRanking]) -> None:
    """Write the ranking of each query to a file in rankings/, and all rankings to a run file."""
    folder = output / RANKINGS_FOLDER
    make_folder(folder)
    with replace_file(output / RUN_FILE) as run:
        for ranking in rankings:
            write_ranking(folder, ranking.query, ranking.images)
            run.write(run_lines(ranking).encode())


def write_ranking(folder: Path, query: str, names: Sequence[str]) -> None:
    """Write the ranking of a query, with one image name per line."""
    with replace_file(ranking_file(folder, query)) as file:
        file.write("".join(f"{name}\n" for name in names).encode())


def ranking_file(folder: Path, query: str) -> Path:
    """Return the file of a query's ranking in a folder of rankings."""
    return folder / f"{query}{RANKING_SUFFIX}"


def versions(device: torch.device) -> dict[str, str]:
    """Return the versions of the libraries and the name of the hardware."""
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
    }


def _for_json(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _for_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
