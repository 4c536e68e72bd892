"""What an evaluation leaves: the printed table and the files of its output folder."""

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

from utils.errors import UserError
from utils.file_names import DESCRIPTORS, RANKING_SUFFIX, RANKINGS_FOLDER, RESULTS
from utils.files.entries import replace_entries
from utils.files.outputs import check_replaceable
from utils.files.writing import check_writable, make_folder, replace_file
from utils.scoring.scores import Scores
from utils.search.searches import EXPANDED, PLAIN

RESULTS_BEGIN = b'{\n  "settings": {'
"""First bytes of results.json."""


def format_scores(scores: Mapping[str, Scores]) -> str:
    """Return the printed scores of the searches; each but the plain one comes after a line with its name."""
    parts = []
    for search, of_search in scores.items():
        parts += [] if search == PLAIN else [f"{search.capitalize()}..."]
        parts.append(of_search.format())
    return "\n".join(parts)


def scores_for_json(scores: Mapping[str, Scores]) -> dict[str, object]:
    """Return the scores of the searches as results.json holds them, the plain one by keys without suffix."""
    entries: dict[str, object] = {}
    for search, of_search in scores.items():
        entries |= of_search.for_json("" if search == PLAIN else "_" + search.replace(" ", "_"))
    if not scores[PLAIN].has_protocols and EXPANDED not in scores:
        entries |= {"mAP_query_expansion": None, "AP_query_expansion": None}
    return entries


@contextmanager
def new_results(output: Path) -> Iterator[Path]:
    """Make a temporary folder whose results take the place of an earlier evaluation's once complete.

    Args:
        output: the folder of the results; whatever else is in it stays.

    Raises:
        UserError: it cannot be written; the earlier results are then as they were.
    """
    with replace_entries(output, (DESCRIPTORS, RANKINGS_FOLDER, RESULTS)) as draft:
        yield draft
        earlier, rankings = output / RANKINGS_FOLDER, draft / RANKINGS_FOLDER
        for path in earlier.iterdir() if earlier.is_dir() else ():
            if path.suffix != RANKING_SUFFIX and path.is_file():  # of the user
                shutil.copy2(path, rankings / path.name)


def check_output(output: Path) -> None:
    """Check, before hours of work, that results can be written to a folder and replace no other files.

    Raises:
        UserError: they cannot, or would.
    """
    check_writable(output)
    check_replaceable(output / RESULTS, RESULTS_BEGIN)
    for name, is_kind in ((RANKINGS_FOLDER, Path.is_dir), (DESCRIPTORS, Path.is_file)):
        path = output / name
        if os.path.lexists(path) and (path.is_symlink() or not is_kind(path)):
            raise UserError(f"{path} was not written by this program: name another --output")


class DescriptorTable(NamedTuple):
    """The descriptors of an evaluation, by name."""

    names: Sequence[str]
    descriptors: np.ndarray
    """(N, D)."""
    query_names: Sequence[str]
    query_descriptors: np.ndarray
    """(Q, D)."""


def write_output(
    output: Path,
    results: Mapping[str, object],
    rankings: Iterable[tuple[str, Sequence[str]]],
    descriptors: DescriptorTable | None,
) -> None:
    """Write the files of an evaluation, which replace an earlier evaluation's once all are complete.

    Args:
        output: their folder.
        results: the contents of results.json.
        rankings: name and ranking of each query, the most similar image first.
        descriptors: the contents of descriptors.npz; None to write none.

    Raises:
        UserError: a file cannot be written.
    """
    with new_results(output) as draft:
        if descriptors is not None:
            write_descriptors(draft, *descriptors)
        write_rankings(draft, rankings)
        write_results(draft, results)


def write_results(output: Path, results: Mapping[str, object]) -> None:
    """Writes results.json; a number that is not finite becomes null, as JSON has none."""
    with replace_file(output / RESULTS) as file:
        file.write(json.dumps(_for_json(results), indent=2, allow_nan=False).encode() + b"\n")


def write_descriptors(
    output: Path,
    names: Sequence[str],
    descriptors: np.ndarray,
    query_names: Sequence[str],
    query_descriptors: np.ndarray,
) -> None:
    """Writes descriptors.npz: names as text, descriptors (N, D) and (Q, D) as float32, nothing pickled."""
    with replace_file(output / DESCRIPTORS) as file:
        np.savez(
            file,
            names=np.array(names, dtype=np.str_),
            descriptors=descriptors.astype(np.float32),
            query_names=np.array(query_names, dtype=np.str_),
            query_descriptors=query_descriptors.astype(np.float32),
        )


def write_rankings(output: Path, rankings: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Writes rankings/<query>.rnk, image names one a line."""
    folder = output / RANKINGS_FOLDER
    make_folder(folder)
    for query, names in rankings:
        with replace_file(ranking_file(folder, query)) as file:
            file.write("".join(f"{name}\n" for name in names).encode())


def ranking_file(folder: Path, query: str) -> Path:
    """The file of a query's ranking in a folder of rankings."""
    return folder / f"{query}{RANKING_SUFFIX}"


def versions(device: torch.device) -> dict[str, str]:
    """The versions and the hardware that a result came from."""
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
