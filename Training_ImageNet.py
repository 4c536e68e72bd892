"""Trains the attention head on ImageNet: which regions make a picture recognisable also makes it retrievable.

A frozen backbone turns crops into feature maps, the head weighs their R-MAC regions, and a frozen classifier
sees the weighted mean of the regions' maxima. Only the head's four tensors learn, by cross entropy. Files go
to --output, reports to standard output, one JSON line each, and everything else to standard error.

    python Training_ImageNet.py
    torchrun --nproc-per-node 4 Training_ImageNet.py --resume
"""

if __name__ == "__main__":  # before the imports that take seconds
    import utils.program.start  # noqa: F401

import json
import logging
import math
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F
from torch.optim import Optimizer
from tqdm import tqdm

from models.attention import Activation, ContextAwareRegionalAttention
from models.attention_classifier import AttentionClassifier
from models.backbones import BACKBONES, DEFAULT_BACKBONE
from utils.data.imagenet import FOLDER, read_training_images, read_validation_images
from utils.device import PRECISIONS, choose_device, compiled, suitable_workers
from utils.errors import UserError, run_command
from utils.file_names import DATASETS_DIR, TRAINING_STATE, WEIGHTS_DIR
from utils.files.paths import user_path
from utils.files.writing import check_writable, make_folder
from utils.options import arguments
from utils.options.ranges import RANGES
from utils.processes import Ranks, joined_ranks, launched_device, log_level
from utils.program.signals import stop_wish
from utils.text import log_to_stderr, some_of
from utils.training import report as training_report
from utils.training.batches import FeatureBatch, crop_source, extract_regions, stored_source
from utils.training.crops import CropSettings, Interpolation
from utils.training.state import Progress, load_state, save_state, save_weights
from utils.weights.networks import load_classifier, load_folded_backbone

log = logging.getLogger(__name__)

ITERATIONS = 999_999
BATCH_SIZE = 4
ACCUMULATE = 4
LEARNING_RATE = 1e-3
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-5
CHECKPOINT_EVERY = 1600
VAL_IMAGES = 10_000
CROP = 800
RESIZE = (850, 859)
INTERPOLATION: Interpolation = "nearest"
"""Pillow's default in 2018, and so what the published weights saw."""

SETTINGS = (
    *("backbone", "L", "activation", "precision", "seed", "crop", "resize", "interpolation", "precompute"),
    *("batch_size", "accumulate", "lr", "momentum", "weight_decay", "checkpoint_every", "val_images"),
)
"""What a training's files depend on: it can only be resumed with the same."""

MOST_CORRUPT = 0.01
"""Share of the training pictures that may be corrupt."""


def main(
    *,
    datasets_dir: str | Path = DATASETS_DIR,
    weights_dir: str | Path = WEIGHTS_DIR,
    backbone: str = DEFAULT_BACKBONE,
    L: int = arguments.LEVELS,
    activation: Activation = arguments.ACTIVATION,
    iterations: int = ITERATIONS,
    batch_size: int = BATCH_SIZE,
    accumulate: int = ACCUMULATE,
    lr: float = LEARNING_RATE,
    momentum: float = MOMENTUM,
    weight_decay: float = WEIGHT_DECAY,
    checkpoint_every: int = CHECKPOINT_EVERY,
    val_images: int = VAL_IMAGES,
    crop: int = CROP,
    resize: Sequence[int] = RESIZE,
    interpolation: Interpolation = INTERPOLATION,
    precompute: str | Path | None = None,
    device: str = arguments.DEVICE,
    precision: str = arguments.PRECISION,
    compile: bool = False,
    workers: int | None = None,
    seed: int = arguments.SEED,
    output: str | Path = WEIGHTS_DIR,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Trains a head; the parameters are the command line's options.

    Returns:
        The reports: step, loss and accuracies, one every `checkpoint_every` steps and one at the end.

    Raises:
        UserError: whatever the user can mend, most of it before any picture is decoded.
        SystemExit: SIGTERM or Ctrl-C came; the state was saved.
    """
    given = dict(locals())
    arguments.check_options(given)
    datasets_dir = user_path(datasets_dir, "datasets_dir")
    weights_dir, output = user_path(weights_dir, "weights_dir"), user_path(output, "output")
    precompute = None if precompute is None else user_path(precompute, "precompute")
    if min(resize) < crop or resize[0] > resize[1]:
        sides = " ".join(map(str, resize))
        raise UserError(f"--resize {sides} must be a range of sides no shorter than --crop {crop}")
    settings = {name: given[name] for name in SETTINGS}
    settings |= {"resize": list(resize), "precompute": precompute is not None}
    check_writable(output)
    if not resume and (output / TRAINING_STATE).exists():
        raise UserError(f"{output / TRAINING_STATE} is of an earlier training: --resume, or another --output")

    torch_device = choose_device(launched_device(device))
    workers = suitable_workers(torch_device) if workers is None else workers
    with joined_ranks(torch_device) as ranks, stop_wish() as wish:
        # The pictures, the frozen backbone and classifier, and the head, the only thing that learns.
        entry = BACKBONES[backbone]
        fc_weight, fc_bias = load_classifier(entry, weights_dir)
        folder = datasets_dir / FOLDER
        training = read_training_images(folder, len(fc_bias))
        validation = read_validation_images(folder, len(fc_bias), val_images, seed)
        if len(validation.paths) < val_images and ranks.leads:
            log.warning("note: there are only %d validation images; all are used", len(validation.paths))
        network = load_folded_backbone(entry, weights_dir, PRECISIONS[precision]).to(torch_device)
        network = compiled(network) if compile else network
        torch.manual_seed(seed)
        head = ContextAwareRegionalAttention(entry.channels, activation)
        model = AttentionClassifier(head, fc_weight, fc_bias).to(torch_device)
        optimizer = torch.optim.SGD(head.parameters(), lr, momentum, weight_decay=weight_decay)

        make_folder(output)
        progress = load_state(output, head, optimizer, settings, ranks) if resume else Progress()

        # Batches of region features: of crops as they are drawn, or of fixed crops described once.
        crops = CropSettings(crop, *resize, interpolation)
        extract = partial(extract_regions, network, entry, L)
        common = (training, validation, crops, extract, ranks)
        draws = {"batch_size": batch_size, "workers": workers, "seed": seed}
        if precompute is None:
            source = crop_source(*common, **draws)
        else:
            made_with = {
                key: settings[key] for key in ("backbone", "L", "crop", "interpolation", "precision")
            }
            source = stored_source(precompute, made_with, *common, channels=entry.channels, **draws)

        bar = tqdm(
            total=iterations * batch_size,
            initial=progress.step * batch_size,
            unit="image",
            disable=None if ranks.leads else True,
        )
        with bar:
            for batch in source.training(progress.step, iterations):
                learn(model, batch, progress, batch_size * accumulate)
                note_corrupt(progress, batch.corrupt, len(training.paths))
                stop = bool(wish.signal_number) and ranks.world == 1
                if progress.step % accumulate == 0:
                    stop = update(head, optimizer, ranks, bool(wish.signal_number))
                bar.update(batch_size)
                bar.set_postfix(progress.averages(), refresh=False)
                report_is_due = progress.step % checkpoint_every == 0 or progress.step == iterations
                if not (stop or report_is_due):
                    continue
                progress.add_up_sums(ranks)
                if report_is_due:
                    report(model, source.validation(), progress, ranks, output)
                    progress.clear_sums()
                save_state(output, head, optimizer, progress, settings, ranks)
                if stop:
                    log.warning("stopped after step %d; --resume goes on from there", progress.step)
                    raise SystemExit(wish.exit_status())
        if ranks.leads and progress.reports:
            training_report.draw_curves(output, progress.reports)
    return progress.reports


def learn(model: AttentionClassifier, batch: FeatureBatch, progress: Progress, images_an_update: int) -> None:
    """Adds one mini-batch's gradient to the head's, and counts what the model made of it.

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
    (loss / images_an_update).backward()
    progress.loss += float(loss.detach())
    progress.hits += int((scores.argmax(1) == classes).sum())
    progress.images += len(classes)


def update(
    head: ContextAwareRegionalAttention, optimizer: Optimizer, ranks: Ranks, wants_to_stop: bool
) -> bool:
    """One step of the optimiser with all processes' gradients; says whether any of them is to stop."""
    parameters = list(head.parameters())
    for parameter in parameters:
        if parameter.grad is None:  # all this process's pictures were another's or corrupt
            parameter.grad = torch.zeros_like(parameter)
        ranks.add_up(parameter.grad)
    optimizer.step()
    optimizer.zero_grad()
    return bool(ranks.add_up(torch.tensor(float(wants_to_stop), device=parameters[0].device)) > 0)


def note_corrupt(progress: Progress, corrupt: Sequence[Path], images: int) -> None:
    """Notes pictures that could not be decoded, each once.

    Raises:
        UserError: they are too many of all pictures.
    """
    for path in map(str, corrupt):
        if path not in progress.corrupt:
            progress.corrupt.append(path)
            log.warning("note: left out %s, which cannot be decoded or is too thin to crop", path)
    if len(progress.corrupt) > MOST_CORRUPT * images:
        raise UserError(
            f"{len(progress.corrupt)} of {images} training images cannot be decoded, more than "
            f"{MOST_CORRUPT:.0%}; {progress.corrupt[0]} is the first"
        )


@torch.inference_mode()
def report(
    model: AttentionClassifier,
    validation: Iterable[FeatureBatch],
    progress: Progress,
    ranks: Ranks,
    output: Path,
) -> None:
    """Validates the head, prints a report and writes it and the head's weights."""
    sums = torch.zeros(5, dtype=torch.float64, device=model.bias.device)
    unreadable: list[str] = []
    for batch in validation:
        unreadable += map(str, batch.corrupt)
        if batch.features is not None:
            classes = batch.classes.to(sums.device)
            learned, uniform = (judge(way(batch.features), classes) for way in (model, model.uniform))
            sums += sums.new_tensor([*learned, *uniform, len(classes)])
    if unreadable:
        log.warning(
            "note: validated without %d images that cannot be decoded or are too thin to crop (%s)",
            len(unreadable),
            some_of(unreadable),
        )
    *sums, images = ranks.add_up(sums).tolist()
    loss, accuracy, uniform_loss, uniform_accuracy = (total / max(images, 1) for total in sums)
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
    if ranks.leads:
        newest = progress.reports[-1]
        print(json.dumps(newest), flush=True)
        save_weights(output, model.attention, newest["report"], newest["val_accuracy"])
        training_report.write_log(output, progress.reports)
        training_report.write_tensorboard(output, newest)


def judge(scores: torch.Tensor, classes: torch.Tensor) -> tuple[float, int]:
    """Sum of the losses, and how many scores are highest at the right class."""
    loss = F.cross_entropy(scores, classes, reduction="sum")
    return float(loss), int((scores.argmax(1) == classes).sum())


def command_line(words: Sequence[str] | None = None) -> None:
    """Reads the options, of this process if none are given, and runs main with them."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    arguments.add_backbone_options(parser)
    arguments.add_attention_options(parser)
    arguments.add_run_options(parser)
    group = parser.add_argument_group("training")
    group.add_argument(
        "--iterations", type=RANGES["iterations"], default=ITERATIONS, help="steps of one mini-batch"
    )
    group.add_argument(
        "--batch-size", type=RANGES["batch_size"], default=BATCH_SIZE, help="images of a mini-batch"
    )
    group.add_argument(
        "--accumulate", type=RANGES["accumulate"], default=ACCUMULATE, help="mini-batches of an update"
    )
    group.add_argument("--lr", type=RANGES["lr"], default=LEARNING_RATE, help="learning rate")
    group.add_argument("--momentum", type=RANGES["momentum"], default=MOMENTUM, help="of SGD")
    group.add_argument("--weight-decay", type=RANGES["weight_decay"], default=WEIGHT_DECAY, help="of SGD")
    group.add_argument(
        "--checkpoint-every",
        type=RANGES["checkpoint_every"],
        default=CHECKPOINT_EVERY,
        help="steps between reports",
    )
    group.add_argument("--val-images", type=RANGES["val_images"], default=VAL_IMAGES, help="drawn once")
    group.add_argument(
        "--crop", type=RANGES["crop"], default=CROP, help="side of the square input, in pixels"
    )
    group.add_argument(
        "--resize",
        type=RANGES["resize"],
        nargs=2,
        default=RESIZE,
        help="range of the shorter side before the crop",
    )
    group.add_argument(
        "--interpolation", choices=get_args(Interpolation), default=INTERPOLATION, help="of that resizing"
    )
    group.add_argument(
        "--precompute",
        type=arguments.path,
        help="train on centre crops, whose region features are kept in this file",
    )
    group.add_argument(
        "--output", type=arguments.path, default=WEIGHTS_DIR, help="folder of all that is written"
    )
    group.add_argument("--resume", action="store_true", help="go on with the training in --output")
    main(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    log_to_stderr(log_level())
    sys.exit(run_command(command_line))
