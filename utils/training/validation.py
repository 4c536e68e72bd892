"""Validation of a training: losses and accuracies of the head, and of uniform weights for comparison."""

import logging
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention_classifier import AttentionClassifier
from utils.processes import Processes
from utils.text import first_names
from utils.training.batches import FeatureBatch
from utils.training.state import Progress

log = logging.getLogger(__name__)


@torch.inference_mode()
def validate(
    model: AttentionClassifier, validation: Iterable[FeatureBatch], progress: Progress, processes: Processes
) -> None:
    """Validate the head, compare it with uniform weights, and add a report to the progress."""
    sums = torch.zeros(5, dtype=torch.float64, device=model.bias.device)
    unreadable: list[str] = []
    for batch in validation:
        unreadable += map(str, batch.unreadable)
        if batch.features is not None:
            classes = batch.classes.to(sums.device)
            learned = loss_and_hits(model(batch.features), classes)
            uniform = loss_and_hits(model.uniform(batch.features), classes)
            sums += sums.new_tensor([*learned, *uniform, len(classes)])
    if unreadable:
        log.warning(
            "note: validated without %d images that cannot be decoded or are too thin to crop (%s)",
            len(unreadable),
            first_names(unreadable),
        )
    *totals, images = processes.add_up(sums).tolist()
    loss, accuracy, uniform_loss, uniform_accuracy = (total / max(images, 1) for total in totals)
    averages = progress.averages()
    progress.reports.append(
        {
            "report": len(progress.reports) + 1,
            "step": progress.step,
            "loss": averages["loss"],
            "train_accuracy": averages["accuracy"],
            "val_loss": loss,
            "val_accuracy": accuracy,
            "val_loss_uniform": uniform_loss,
            "val_accuracy_uniform": uniform_accuracy,
            "val_images": int(images),
            "unreadable_images": len(progress.unreadable),
        }
    )


def loss_and_hits(scores: Tensor, classes: Tensor) -> tuple[float, int]:
    """Return the sum of the losses, and the number of images whose class has the highest score."""
    loss = F.cross_entropy(scores, classes, reduction="sum")
    return float(loss), int((scores.argmax(1) == classes).sum())
