"""Checkpoints of a training: the head's weights, and the state from which the training is resumed."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.errors import BadFileError, UserError, advising
from utils.file_names import TRAINING_STATE
from utils.files.records import Setting, check_record
from utils.files.writing import replace_file
from utils.processes import Processes
from utils.saved_settings import check_same_settings
from utils.text import shorten
from utils.weights.classifiers import Classifier, checked_classifier
from utils.weights.state_dicts import load_plain_tensors

FORMAT = 2
"""Version of the format of a state file. Since version 2, a state holds the gradient of all processes."""

MOMENTUM_BUFFER = "momentum_buffer"

MOST_COUNTED = 2**53
"""Largest count in a state. Processes sum counts in float64, which holds all integers up to this one."""

REPORTED = frozenset(
    {"step", "loss", "train_accuracy"}
    | {f"val_{name}{kind}" for name in ("loss", "accuracy") for kind in ("", "_uniform")}
)
"""Keys of a report that the figure of the curves needs."""


@dataclass
class Progress:
    """Progress of a training. It holds no random state, since every draw depends only on seed and step."""

    step: int = 0
    """Number of steps done."""
    loss: float = 0.0
    """Sum of the losses of the images since the last report."""
    hits: int = 0
    """Number of images since the last report that were classified correctly."""
    images: int = 0
    """Number of images since the last report."""
    reports: list[dict[str, float]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Paths of the unreadable images."""

    def averages(self) -> dict[str, float]:
        """Return the mean loss and the accuracy since the last report."""
        images = max(self.images, 1)
        return {"loss": self.loss / images, "accuracy": self.hits / images}

    def add_up_sums(self, processes: Processes) -> None:
        """Replace the sums of this process by the sums of all processes."""
        sums = torch.tensor([self.loss, self.hits, self.images], dtype=torch.float64, device=processes.device)
        self.loss, hits, images = processes.add_up(sums).tolist()
        self.hits, self.images = int(hits), int(images)

    def clear_sums(self) -> None:
        """Set the sums to zero."""
        self.loss, self.hits, self.images = 0.0, 0, 0


class _Optimizer(TypedDict):
    """State of the optimizer. Its options are not read from it, but from the settings."""

    state: dict[int, dict[str, object]]


class _State(TypedDict):
    """Contents of a state file."""

    format: NotRequired[int]
    head: dict[str, Tensor]
    gradients: dict[str, Tensor]
    optimizer: _Optimizer
    progress: Progress
    settings: dict[str, Setting]
    classifier: NotRequired[dict[str, Tensor]]
    """The frozen classifier of a training with --images, once it is trained."""


def save_state(
    output: Path,
    head: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    settings: Mapping[str, object],
    processes: Processes,
    classifier: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the state from which a training is resumed. All processes call this; the first one writes.

    Between two updates of the head, each process has the gradient of its share of the images. The sum of the
    gradients is saved.

    Raises:
        UserError: the file cannot be written.
    """
    gradients = summed_gradients(head, processes)
    if not processes.leads:
        return
    state = {
        "format": FORMAT,
        "head": head.state_dict(),
        "gradients": gradients,
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
        "settings": dict(settings),
    }
    if classifier is not None:
        state["classifier"] = dict(classifier)
    with replace_file(output / TRAINING_STATE) as file:
        torch.save(state, file)


def summed_gradients(head: nn.Module, processes: Processes) -> dict[str, Tensor]:
    """Return the sum of all processes' gradients by parameter name, without changing the gradients."""
    return {
        name: processes.add_up(
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        )
        for name, parameter in head.named_parameters()
    }


def load_state(
    output: Path, head: nn.Module, optimizer: Optimizer, settings: Mapping[str, object], processes: Processes
) -> Progress:
    """Load the saved state of a training into the head and the optimizer of each process.

    The first process gets the saved gradient and sums, and all other processes get zeros, since the next
    update adds them up.

    Raises:
        UserError: there is no state, it is unreadable, or it was saved with other settings or in another
            format. Head and optimizer are then unchanged.
    """
    path = output / TRAINING_STATE
    if not path.is_file():
        raise UserError(f"nothing to resume: there is no {path}")
    with advising("start anew with another --output"):
        state = _read_state(path)
        version = state.get("format", 1)
        if version != FORMAT and (version != 1 or state["gradients"]):
            raise UserError(
                f"{path} was saved by another version of this program, in format {version}: "
                f"this one reads format {FORMAT}"
                + (", since format 1 holds the gradient of only one process" if version == 1 else "")
            )
    check_same_settings(path, state["settings"], settings)
    with advising("start anew with another --output"):
        try:
            progress = _checked_progress(state["progress"])
            buffers = _checked_tensors(state, head)
        except ValueError as error:
            raise BadFileError(f"{path} is unreadable: {error}") from error
    head.load_state_dict(state["head"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": buffers})
    if processes.leads:
        for name, parameter in head.named_parameters():
            gradient = state["gradients"].get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter)
    else:
        progress.clear_sums()
    return progress


def resume_classifier(
    output: Path, classes: int, channels: int, given: Classifier | None
) -> Classifier | None:
    """Return the classifier in a saved state; if there is none, the given one.

    Args:
        output: folder of the state, which was loaded before.
        classes: K, the number of classes.
        channels: C, the number of channels of the backbone.
        given: a classifier that the user has given.

    Raises:
        UserError: the given classifier is another one than the saved one.
    """
    path = output / TRAINING_STATE
    state = _read_state(path)
    if "classifier" not in state:
        return given
    with advising("start anew with another --output"):
        saved = checked_classifier(state["classifier"], channels, str(path))
        if len(saved.bias) != classes:
            raise BadFileError(f"{path} is unreadable: its classifier is one of {len(saved.bias)} classes")
        if given is not None and not (saved.weight.equal(given.weight) and saved.bias.equal(given.bias)):
            raise UserError(f"{path} was saved with another classifier than that of --classifier")
    return saved


def _read_state(path: Path) -> _State:
    """Return the contents of a state file.

    Raises:
        UserError: the file is unreadable.
    """
    saved = load_plain_tensors(path, "a training state")
    if (
        isinstance(saved, dict)
        and isinstance(progress := saved.get("progress"), dict)
        and "corrupt" in progress
    ):
        progress["unreadable"] = progress.pop("corrupt")  # its name before version 0.2.0
    return check_record(path, saved, _State)


def _checked_progress(saved: object) -> Progress:
    """Return the progress that a state holds.

    Raises:
        ValueError: a count is out of range, the loss is not finite, or a report lacks a value.
    """
    progress = Progress(**saved)  # type: ignore[arg-type]  # check_record has compared its fields
    counts = (progress.step, progress.hits, progress.images)
    if min(counts) < 0 or max(counts) > MOST_COUNTED or not abs(progress.loss) <= sys.float_info.max:
        raise ValueError("a count or the loss of its progress is out of range")
    for report in progress.reports:
        if missing := sorted(REPORTED - report.keys()):
            raise ValueError(f"a report has no {missing[0]!r}")
    return progress


def _checked_tensors(state: _State, head: nn.Module) -> dict[int, dict[str, Tensor | None]]:
    """Check the tensors of a state against the head, and return the optimizer's tensors by parameter index.

    Raises:
        ValueError: a tensor is missing, has another shape or holds values that are not finite.
    """
    parameters = dict(head.named_parameters())
    _check_tensors("head", state["head"], head.state_dict())
    if state["gradients"]:
        _check_tensors("gradients", state["gradients"], parameters)
    saved = state["optimizer"]["state"]
    buffers = {
        name: saved[index].get(MOMENTUM_BUFFER) for index, name in enumerate(parameters) if index in saved
    }
    if len(saved) != len(buffers) or len(buffers) not in (0, len(parameters)):
        raise ValueError("the state of the optimizer is for other parameters")
    present = {name: buffer for name, buffer in buffers.items() if buffer is not None}
    if present:
        _check_tensors("optimizer", present, parameters)
    return {
        index: {MOMENTUM_BUFFER: cast(Tensor | None, buffer)} for index, buffer in enumerate(buffers.values())
    }


def _check_tensors(what: str, saved: Mapping[str, object], wanted: Mapping[str, Tensor]) -> None:
    if saved.keys() != wanted.keys():
        name = min(saved.keys() ^ wanted.keys())
        raise ValueError(f"{shorten(name)} of {what} is {'unknown' if name in saved else 'missing'}")
    for name, tensor in saved.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise ValueError(f"{name} of {what} holds no real numbers")
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            raise ValueError(f"{name} of {what} has shape {shapes}")
        if tensor.is_meta or not torch.isfinite(tensor.to(wanted[name].dtype)).all():
            raise ValueError(f"{name} of {what} holds values that are not finite")
