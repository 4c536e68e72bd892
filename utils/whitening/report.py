"""Files of a learned whitening: its two arrays, their record and a figure of the spectrum."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from utils.file_names import PCA_COMPONENTS, PCA_MEAN, PCA_RECORD, PCA_SPECTRUM
from utils.files.records import write_json
from utils.files.writing import replace_file


def write_files(folder: Path, components: np.ndarray, mean: np.ndarray, record: Mapping[str, object]) -> None:
    """Write pca_components.npy and pca_mean.npy in the format of the original, pca.json and pca.png.

    Args:
        folder: folder to write to.
        components: components (D, C), each divided by the square root of its variance.
        mean: mean (C,); the file holds its negative.
        record: contents of pca.json. Its `explained_variance` is drawn.

    Raises:
        UserError: a file cannot be written.
    """
    for name, array in ((PCA_COMPONENTS, components), (PCA_MEAN, -mean)):
        with replace_file(folder / name) as file:
            np.save(file, array.astype(np.float32))
    write_json(folder / PCA_RECORD, record)
    draw_spectrum(folder / PCA_SPECTRUM, cast(Sequence[float], record["explained_variance"]), len(components))


def draw_spectrum(path: Path, variances: Sequence[float], kept: int) -> None:
    """Draw the variance of each component, and the cumulative share of the variance.

    Args:
        path: the file, .png.
        variances: variances of all components, in decreasing order.
        kept: number of components that are kept.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # here, since the import takes long

    values = np.array(variances)
    numbers = np.arange(1, len(values) + 1)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    single, cumulative = figure.subplots(1, 2)
    single.semilogy(numbers[values > 0], values[values > 0], "k-")
    single.set(xlabel="component", ylabel="variance")
    cumulative.plot(numbers, 100 * values.cumsum() / values.sum(), "k-")
    cumulative.set(xlabel="components", ylabel="cumulative share of the variance, %", ylim=(0, 101))
    for axes in (single, cumulative):
        axes.axvline(kept, color="C0", linestyle="--", label=f"{kept} kept")
        axes.grid(alpha=0.3)
        axes.legend()
    with replace_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
