"""Checkpoints of a training: the head's weights for use, and the full state to go on from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.attention import ContextAwareRegionalAttention
from utils.errors import UserError
from utils.file_names import TRAINING_STATE, trained_weights
from utils.files.writing import replace_file
from utils.processes import Ranks
from utils.saved_settings import check_same_settings

FORMAT = 2
"""Of a state file; 2 has the gradient of all processes."""


@dataclass
class Progress:
    """Where a training stands. No random state is part of it: every draw is a function of seed and step."""

    step: int = 0
    """Steps done."""
    loss: float = 0.0
    hits: int = 0
    images: int = 0
    """Sums over the images since the last report."""
    reports: list[dict[str, float]] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)

    def averages(self) -> dict[str, float]:
        """Mean loss and accuracy since the last report."""
        images = max(self.images, 1)
        return {"loss": self.loss / images, "accuracy": self.hits / images}

    def add_up_sums(self, ranks: Ranks) -> None:
        """Replaces the sums by those of all processes."""
        sums = torch.tensor([self.loss, self.hits, self.images], dtype=torch.float64, device=ranks.device)
        self.loss, hits, images = ranks.add_up(sums).tolist()
        self.hits, self.images = int(hits), int(images)

    def clear_sums(self) -> None:
        """Begins the sums anew."""
        self.loss, self.hits, self.images = 0.0, 0, 0


def save_weights(output: Path, head: ContextAwareRegionalAttention, number: int, accuracy: float) -> Path:
    """Writes the head's four tensors as a bare state dict, in the original's name and form."""
    path = output / trained_weights(number, accuracy)
    with replace_file(path) as file:
        torch.save({name: tensor.cpu() for name, tensor in head.state_dict().items()}, file)
    return path


def save_state(
    output: Path,
    head: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    settings: Mapping[str, object],
    ranks: Ranks,
) -> None:
    """Write all that a training needs to go on; every process calls this, and the first one writes.

    Between two updates each process has a gradient of its share of the images. Their sum is saved.
    """
    gradients = summed_gradients(head, ranks)
    if not ranks.leads:
        return
    with replace_file(output / TRAINING_STATE) as file:
        torch.save(
            {
                "format": FORMAT,
                "head": head.state_dict(),
                "gradients": gradients,
                "optimizer": optimizer.state_dict(),
                "progress": asdict(progress),
                "settings": dict(settings),
            },
            file,
        )


def summed_gradients(head: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """Return the sum of all processes' gradients, by parameter name; the gradients stay as they are."""
    return {
        name: ranks.add_up(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone())
        for name, parameter in head.named_parameters()
    }


def load_state(
    output: Path, head: nn.Module, optimizer: Optimizer, settings: Mapping[str, object], ranks: Ranks
) -> Progress:
    """Put a head and its optimizer back to where a training was saved, in each process.

    The first process gets the saved gradient and the saved sums, the others get zeros: the next update adds
    them up.

    Raises:
        UserError: there is no state, it is damaged, or it was saved with other settings or by a version that
            saved the gradient of one process alone.
    """
    path = output / TRAINING_STATE
    if not path.is_file():
        raise UserError(f"nothing to resume: there is no {path}")
    device = next(head.parameters()).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        saved = state["settings"]
        progress = Progress(**state["progress"])
    except Exception as error:  # a damaged file can make the zip reader and the unpickler raise anything
        raise UserError(f"{path} cannot be read as a training state; is it whole?") from error
    if state.get("format", 1) != FORMAT and state["gradients"]:
        raise UserError(
            f"{path} was saved between two updates by another version of this program, which kept the "
            "gradient of one process alone: start anew with another --output, or go on with that version"
        )
    check_same_settings(path, saved, settings)
    head.load_state_dict(state["head"])
    optimizer.load_state_dict(state["optimizer"])
    if ranks.leads:
        for name, parameter in head.named_parameters():
            parameter.grad = state["gradients"].get(name)
    else:
        progress.clear_sums()
    return progress
