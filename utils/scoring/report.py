"""What an evaluation leaves: the printed table and the files of its output folder."""

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision

from utils.file_names import DESCRIPTORS, RANKING_SUFFIX, RANKINGS_FOLDER, RESULTS
from utils.files.writing import make_folder, replace_file


def mean_average_precision(precisions: Mapping[str, float]) -> float:
    """Mean over the queries, those without positives left out; NaN if that leaves none."""
    defined = [precision for precision in precisions.values() if not math.isnan(precision)]
    return math.fsum(defined) / len(defined) if defined else float("nan")


def format_scores(precisions: Mapping[str, float]) -> str:
    """The original's printed form: a line `name: percent` a query, twenty dashes, `Mean: percent`.

    Args:
        precisions: average precision by query, 0..1, in the order to print.
    """
    lines = [f"{query}: {100 * precision:.2f}" for query, precision in precisions.items()]
    return "\n".join([*lines, "-" * 20, f"Mean: {100 * mean_average_precision(precisions):.1f}"])


def start(output: Path) -> None:
    """Makes the output folder, and takes away what an earlier run left that this one may not come to replace.

    That is results.json, the last file to be written, and descriptors.npz, which a run with a store has not.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    make_folder(output)
    for name in (RESULTS, DESCRIPTORS):
        (output / name).unlink(missing_ok=True)


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
    """Writes rankings/<query>.rnk, image names one a line, and takes away those of an earlier run."""
    folder = output / RANKINGS_FOLDER
    make_folder(folder)
    queries = set()
    for query, names in rankings:
        queries.add(query)
        with replace_file(ranking_file(folder, query)) as file:
            file.write("".join(f"{name}\n" for name in names).encode())
    for path in folder.glob(f"*{RANKING_SUFFIX}"):
        if path.name.removesuffix(RANKING_SUFFIX) not in queries:
            path.unlink()


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
