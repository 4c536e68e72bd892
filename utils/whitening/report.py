"""The files that a learned whitening leaves: its two arrays, their record and an image of the spectrum."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from utils.file_names import PCA_COMPONENTS, PCA_MEAN, PCA_RECORD, PCA_SPECTRUM
from utils.files.writing import replace_file


def write_files(folder: Path, components: np.ndarray, mean: np.ndarray, record: Mapping[str, object]) -> None:
    """Writes pca_components.npy and pca_mean.npy in the original's form, pca.json and pca.png.

    Args:
        folder: where to.
        components: (D, C), each divided by the square root of its variance.
        mean: (C,); the file holds the negative of it.
        record: for pca.json; its `explained_variance` is drawn.
    """
    for name, array in ((PCA_COMPONENTS, components), (PCA_MEAN, -mean)):
        with replace_file(folder / name) as file:
            np.save(file, array.astype(np.float32))
    with replace_file(folder / PCA_RECORD) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
    draw_spectrum(folder / PCA_SPECTRUM, cast(Sequence[float], record["explained_variance"]), len(components))


def draw_spectrum(path: Path, variances: Sequence[float], kept: int) -> None:
    """Draws the variance of each direction, and how much of it all the first ones have together."""
    from matplotlib.figure import Figure  # not before there is something to draw

    values = np.array(variances)
    numbers = np.arange(1, len(values) + 1)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    single, together = figure.subplots(1, 2)
    single.semilogy(numbers[values > 0], values[values > 0], "k-")
    single.set(xlabel="component", ylabel="variance")
    together.plot(numbers, 100 * values.cumsum() / values.sum(), "k-")
    together.set(xlabel="components", ylabel="variance of the first ones together, %", ylim=(0, 101))
    for axes in (single, together):
        axes.axvline(kept, color="C0", linestyle="--", label=f"{kept} kept")
        axes.grid(alpha=0.3)
        axes.legend()
    with replace_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
