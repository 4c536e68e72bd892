"""Train the attention head on ImageNet.

A frozen backbone turns crops into feature maps, the head weighs their R-MAC regions, and a frozen classifier
classifies the weighted mean of the regions' maxima. Only the four tensors of the head are trained, by cross
entropy. Files go to --output, reports to standard output as one JSON line each, and all messages to standard
error.

    python Training_ImageNet.py
    torchrun --nproc-per-node 4 Training_ImageNet.py --resume
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    import utils.program.start  # noqa: F401

import json
import logging
import math
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, cast

import torch
import torch.nn.functional as F
from torch.optim import Optimizer
from tqdm import tqdm

from models.attention_classifier import AttentionClassifier
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.data.imagenet import FOLDER, read_training_images, read_validation_images
from utils.device import choose_device, suitable_workers
from utils.errors import UserError
from utils.file_names import TRAINING_STATE, WEIGHTS_DIR
from utils.files.records import Setting
from utils.files.writing import check_writable, make_folder
from utils.images.unreadable import check_unreadable
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.parser import called_with, parse_options
from utils.options.saved_options import binding_settings, to_json
from utils.options.shared import COUNTS, SIDES, BackboneOptions, HeadOptions, RunOptions
from utils.processes import Processes, join_processes, log_level, process_device
from utils.program.run_command import run_command
from utils.program.signals import stop_wish
from utils.text import first_names, log_to_stderr
from utils.training import report as training_report
from utils.training.batches import (
    BatchSource,
    Draws,
    Extract,
    FeatureBatch,
    StoredFeatures,
    crop_source,
    extract_regions,
    stored_source,
)
from utils.training.crops import CropSettings, Interpolation
from utils.training.state import Progress, load_state, save_state, save_weights
from utils.weights.networks import load_classifier, load_folded_backbone

log = logging.getLogger(__name__)

MOST_UNREADABLE = 0.01
"""Share of the training images that may be unreadable."""


@options_class
class TrainingOptions(BackboneOptions, HeadOptions, RunOptions):
    """Options of a training; the defaults are the paper's."""

    title = "training"

    iterations: int = option(default=999_999, help="steps of one mini-batch", valid=COUNTS)
    batch_size: int = option(default=4, help="images per mini-batch", valid=Range(1, 65536), binding=True)
    accumulate: int = option(
        default=4, help="mini-batches per update of the head", valid=Range(1, 10**6), binding=True
    )
    lr: float = option(
        default=1e-3, help="learning rate", valid=Range(0, 1000, exclude_least=True), binding=True
    )
    momentum: float = option(
        default=0.9, help="momentum of SGD", valid=Range(0, 1, exclude_most=True), binding=True
    )
    weight_decay: float = option(default=5e-5, help="weight decay of SGD", valid=Range(0, 1000), binding=True)
    checkpoint_every: int = option(default=1600, help="steps between reports", valid=COUNTS, binding=True)
    val_images: int = option(default=10_000, help="validation images, drawn once", valid=COUNTS, binding=True)
    crop: int = option(default=800, help="side of the square input, in pixels", valid=SIDES, binding=True)
    resize: tuple[int, int] = option(
        default=(850, 859),
        help="range of the shorter side before the crop, in pixels",
        valid=SIDES,
        binding=True,
    )
    # The published weights were trained with nearest, which was Pillow's default in 2018.
    interpolation: Interpolation = option(
        default="nearest", help="interpolation for resizing before the crop", binding=True
    )
    precompute: Path | None = option(
        default=None, help="train on centre crops, whose region features are kept in this file"
    )
    output: Path = option(default=WEIGHTS_DIR, help="folder to write all files to")
    resume: bool = option(default=False, help="continue the training in --output")

    @property
    def saved_settings(self) -> dict[str, Setting]:
        """Options that must be the same when the training is resumed."""
        return cast(dict[str, Setting], binding_settings(self)) | {"precompute": self.precompute is not None}

    def check(self) -> None:
        """Check the range of --resize.

        Raises:
            UserError: the range is empty, or begins below the side of the crop.
        """
        if min(self.resize) < self.crop or self.resize[0] > self.resize[1]:
            sides = " ".join(map(str, self.resize))
            raise UserError(f"--resize {sides} must be a range of sides no shorter than --crop {self.crop}")


def train(options: TrainingOptions) -> list[dict[str, float]]:
    """Train an attention head.

    Returns:
        Reports of step, losses and accuracies: one every `checkpoint_every` steps and one at the end.

    Raises:
        UserError: an option, an image or a file is invalid, or a file cannot be written. Most errors are
            raised before any image is decoded.
        SystemExit: SIGTERM or Ctrl-C stopped the training, after its state was saved.
    """
    check_output(options)
    device = choose_device(process_device(options.device))
    with join_processes(device) as processes, stop_wish() as wish:
        # The frozen backbone and classifier, and the head, which alone is trained.
        spec = options.spec
        fc_weight, fc_bias = load_classifier(options)
        backbone = load_folded_backbone(options).to(device)
        if options.compile:
            backbone.compile_features()
        torch.manual_seed(options.seed)
        head = ContextAwareRegionalAttention(spec.channels, options.activation)
        model = AttentionClassifier(head, fc_weight, fc_bias).to(device)
        optimizer = torch.optim.SGD(
            head.parameters(), options.lr, options.momentum, weight_decay=options.weight_decay
        )

        # Batches of region features, of random crops or of centre crops.
        source = open_source(options, partial(extract_regions, backbone, options.L), len(fc_bias), processes)

        settings = options.saved_settings
        progress = begin(options, head, optimizer, processes)
        with progress_bar(options, progress, processes) as bar:
            for batch in source.training(progress.step, options.iterations):
                train_step(model, batch, progress, options.batch_size * options.accumulate)
                note_unreadable(progress, batch.unreadable, source.training_images)
                stop = bool(wish.signal_number) and processes.count == 1
                if progress.step % options.accumulate == 0:
                    stop = optimizer_step(head, optimizer, processes, bool(wish.signal_number))
                bar.update(options.batch_size)
                bar.set_postfix(progress.averages(), refresh=False)
                is_last = progress.step == options.iterations
                report_is_due = progress.step % options.checkpoint_every == 0 or is_last
                if not (stop or report_is_due):
                    continue
                progress.add_up_sums(processes)
                if report_is_due:
                    validate(model, source.validation(), progress, processes)
                    if processes.leads:
                        write_report(options.output, head, progress)
                    progress.clear_sums()
                save_state(options.output, head, optimizer, progress, settings, processes)
                if stop:
                    log.warning("stopped after step %d; --resume continues from there", progress.step)
                    raise SystemExit(wish.exit_status())
        if processes.leads and progress.reports:
            training_report.draw_curves(options.output, progress.reports)
    return progress.reports


def begin(
    options: TrainingOptions,
    head: ContextAwareRegionalAttention,
    optimizer: Optimizer,
    processes: Processes,
) -> Progress:
    """Return the progress to continue from, and write all options into the output folder.

    With --resume, the saved state is loaded into the head and the optimizer.

    Raises:
        UserError: the state to resume is missing or unreadable, or was saved with other settings.
    """
    make_folder(options.output)
    progress = Progress()
    if options.resume:
        progress = load_state(options.output, head, optimizer, options.saved_settings, processes)
    if processes.leads:  # without resume, so that --config starts a new training
        training_report.write_settings(options.output, to_json(options) | {"resume": False})
    return progress


def open_source(
    options: TrainingOptions, extract: Extract, classes: int, processes: Processes
) -> BatchSource:
    """Return the source of batches: random crops, or centre crops whose features are kept in a file.

    Args:
        options: options of the training.
        extract: the frozen part of the model.
        classes: number of classes of the classifier.
        processes: the processes that share each batch.

    Raises:
        UserError: images or labels are missing, or the file was made with other settings.
    """
    folder = options.datasets_dir / FOLDER
    training = read_training_images(folder, classes)
    validation = read_validation_images(folder, classes, options.val_images, options.seed)
    if len(validation.paths) < options.val_images and processes.leads:
        log.warning("note: there are only %d validation images; all are used", len(validation.paths))
    crops = CropSettings(options.crop, *options.resize, options.interpolation)
    device_workers = suitable_workers(processes.device) if options.workers is None else options.workers
    draws = Draws(options.batch_size, device_workers, options.seed)
    if options.precompute is None:
        return crop_source(training, validation, crops, extract, processes, draws)
    names = ("backbone", "L", "crop", "interpolation", "precision")
    settings = options.saved_settings
    made_with = {name: settings[name] for name in names}
    channels = options.spec.channels
    store = StoredFeatures(options.precompute, made_with, channels)
    return stored_source(store, training, validation, crops, extract, processes, draws)


def train_step(
    model: AttentionClassifier, batch: FeatureBatch, progress: Progress, images_per_update: int
) -> None:
    """Add the gradient of one mini-batch to the head's gradient, and its loss and hits to the progress.

    Raises:
        UserError: the loss is not finite.
    """
    progress.step += 1
    if batch.features is None:
        return
    scores = model(batch.features)
    classes = batch.classes.to(scores.device)
    loss = F.cross_entropy(scores, classes, reduction="sum")
    if not math.isfinite(float(loss.detach())):
        raise UserError(
            f"the loss is not finite at step {progress.step}: try a smaller --lr; the last checkpoint is kept"
        )
    (loss / images_per_update).backward()
    progress.loss += float(loss.detach())
    progress.hits += int((scores.argmax(1) == classes).sum())
    progress.images += len(classes)


def optimizer_step(
    head: ContextAwareRegionalAttention, optimizer: Optimizer, processes: Processes, wants_to_stop: bool
) -> bool:
    """Update the head with the gradients of all processes, and return whether any process has to stop."""
    parameters = list(head.parameters())
    for parameter in parameters:
        if parameter.grad is None:  # this process had no readable image since the last update
            parameter.grad = torch.zeros_like(parameter)
        processes.add_up(parameter.grad)
    optimizer.step()
    optimizer.zero_grad()
    return bool(processes.add_up(torch.tensor(float(wants_to_stop), device=parameters[0].device)) > 0)


def note_unreadable(progress: Progress, unreadable: Sequence[Path], images: int) -> None:
    """Log each unreadable image once, and add it to the progress.

    Raises:
        UserError: too many of the training images are unreadable.
    """
    for path in map(str, unreadable):
        if path not in progress.corrupt:
            progress.corrupt.append(path)
            log.warning("note: left out %s, which cannot be decoded", path)
    check_unreadable(progress.corrupt, images, MOST_UNREADABLE, "training images")


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
            "corrupt_images": len(progress.corrupt),
        }
    )


def write_report(output: Path, head: ContextAwareRegionalAttention, progress: Progress) -> None:
    """Print the newest report, and write the reports and the head's weights.

    Raises:
        UserError: a file cannot be written.
    """
    newest = progress.reports[-1]
    print(json.dumps(newest), flush=True)
    save_weights(output, head, int(newest["report"]), newest["val_accuracy"])
    training_report.write_log(output, progress.reports)
    training_report.write_tensorboard(output, newest)


def loss_and_hits(scores: torch.Tensor, classes: torch.Tensor) -> tuple[float, int]:
    """Return the sum of the losses, and the number of images whose class has the highest score."""
    loss = F.cross_entropy(scores, classes, reduction="sum")
    return float(loss), int((scores.argmax(1) == classes).sum())


def check_output(options: TrainingOptions) -> None:
    """Check that the output folder can be written to, and holds no other training.

    Raises:
        UserError: the folder cannot be written to, or holds the state of a training that is not resumed.
    """
    check_writable(options.output)
    state = options.output / TRAINING_STATE
    if not options.resume and state.exists():
        raise UserError(f"{state} is of an earlier training: --resume, or another --output")


def progress_bar(options: TrainingOptions, progress: Progress, processes: Processes) -> "tqdm[NoReturn]":
    """Return a progress bar over the images. Only the first process shows it."""
    images = options.iterations * options.batch_size
    done = progress.step * options.batch_size
    return tqdm(total=images, initial=done, unit="image", disable=None if processes.leads else True)


main = called_with(TrainingOptions)(train)
"""`train` for Python callers, with the options as keyword arguments."""


def command_line(words: Sequence[str] | None = None) -> None:
    """Parse the words, or the command line of this process if there are none, and train.

    Raises:
        UserError: an option is invalid, or as for `train`.
    """
    train(parse_options(TrainingOptions, __doc__.splitlines()[0], words))


if __name__ == "__main__":
    log_to_stderr(log_level())
    sys.exit(run_command(command_line))
