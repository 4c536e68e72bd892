"""Files with the reports of a training: JSON lines, TensorBoard's log, and a figure of the curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.file_names import (
    TENSORBOARD_FOLDER,
    TRAINING_CURVES,
    TRAINING_LOG,
    TRAINING_SETTINGS,
    trained_weights,
)
from utils.files.records import write_json
from utils.files.writing import replace_file, user_error_if_unwritable

STYLES = {
    "k-o": "training, since the last report",
    "C0-s": "validation",
    "C1--": "validation, equal weights",
}


def write_settings(output: Path, settings: Mapping[str, object]) -> None:
    """Write training.json, which holds all options by name and which `--config` reads.

    Raises:
        UserError: the file cannot be written.
    """
    write_json(output / TRAINING_SETTINGS, {"settings": settings})


def write_weights(output: Path, head: ContextAwareRegionalAttention, number: int, accuracy: float) -> Path:
    """Write the head's four tensors as a state dict, with the file name and format of the original.

    Args:
        output: folder to write to.
        head: the head.
        number: number of the report, for the file name.
        accuracy: validation accuracy, for the file name.

    Returns:
        The file that was written.

    Raises:
        UserError: the file cannot be written.
    """
    path = output / trained_weights(number, accuracy)
    with replace_file(path) as file:
        torch.save({name: tensor.cpu() for name, tensor in head.state_dict().items()}, file)
    return path


def write_log(output: Path, reports: Sequence[Mapping[str, float]]) -> None:
    """Write training.jsonl, one JSON object per report.

    Raises:
        UserError: the file cannot be written.
    """
    with replace_file(output / TRAINING_LOG) as file:
        file.write("".join(json.dumps(report) + "\n" for report in reports).encode())


def write_tensorboard(output: Path, report: Mapping[str, float]) -> None:
    """Add a report to TensorBoard's log, if TensorBoard is installed.

    Raises:
        UserError: the log cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    folder = output / TENSORBOARD_FOLDER
    with user_error_if_unwritable(folder), SummaryWriter(str(folder)) as writer:
        for name, value in report.items():
            writer.add_scalar(name, value, int(report["step"]))


def draw_curves(output: Path, reports: Sequence[Mapping[str, float]]) -> None:
    """Draw loss and accuracies over the steps into training.png.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # here, since the import takes long

    steps = [report["step"] for report in reports]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axes, factor, names in (
        (loss, 1, ("loss", "val_loss", "val_loss_uniform")),
        (accuracy, 100, ("train_accuracy", "val_accuracy", "val_accuracy_uniform")),
    ):
        for name, (style, label) in zip(names, STYLES.items(), strict=True):
            axes.plot(steps, [factor * report[name] for report in reports], style, markersize=3, label=label)
        axes.grid(alpha=0.3)
        axes.legend()
    loss.set(xlabel="step", ylabel="loss")
    accuracy.set(xlabel="step", ylabel="accuracy, %")
    with replace_file(output / TRAINING_CURVES) as file:
        figure.savefig(file, format="png", dpi=120)
