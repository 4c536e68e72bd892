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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch.optim import Optimizer
from tqdm import tqdm

from models.attention_classifier import AttentionClassifier
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.data.labelled_images import ClassifiedImages
from utils.device import choose_device
from utils.errors import UserError
from utils.file_names import CLASSIFIER, CLASSIFIER_FEATURES, TRAINING_STATE
from utils.files.records import Setting
from utils.files.writing import check_writable, make_folder
from utils.images.unreadable import check_unreadable
from utils.options.parser import called_with, parse_options
from utils.options.saved_options import to_json
from utils.processes import Processes, join_processes, log_level, process_device
from utils.program.run_command import run_command
from utils.program.signals import StopWish, stop_wish
from utils.saved_settings import BACKBONE_DIGEST
from utils.text import log_to_stderr
from utils.training import report as training_report
from utils.training.batches import BatchSource, FeatureBatch, extract_regions
from utils.training.best_head import BestHead
from utils.training.classifier import compute_centre_features, train_classifier
from utils.training.options import TrainingOptions
from utils.training.setup import (
    backbone_record,
    best_head,
    feature_settings,
    load_given_classifier,
    open_source,
    read_images,
)
from utils.training.state import Progress, load_state, resume_classifier, save_state
from utils.training.validation import validate
from utils.weights.check_on_images import note_preprocessing
from utils.weights.classifiers import Classifier, save_classifier
from utils.weights.networks import fold_backbone, given_backbone_digest, identify_network, load_backbone

log = logging.getLogger(__name__)

MOST_UNREADABLE = 0.01
"""Share of the training images that may be unreadable."""


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
        # The images and the frozen backbone, with the classifier of the images' classes if there is one.
        backbone = load_backbone(options.spec, options.weights_dir, options.backbone_weights)
        network = identify_network(options, backbone)
        classifier = load_given_classifier(options, network)
        images = read_images(options, classifier, processes)
        best = best_head(options, network, images, classifier)
        if processes.leads:
            note_preprocessing(options, images.training.paths, backbone)
        backbone = fold_backbone(backbone, options, device)
        if options.compile:
            backbone.compile_features()

        # The head, which is trained against the frozen classifier.
        torch.manual_seed(options.seed)
        head = ContextAwareRegionalAttention(options.spec.channels, options.activation).to(device)
        optimizer = torch.optim.SGD(
            head.parameters(), options.lr, options.momentum, weight_decay=options.weight_decay
        )
        settings = options.saved_settings | {
            BACKBONE_DIGEST: given_backbone_digest(options, network),
            "images": images.summary or None,
        }
        progress, classifier = begin(options, head, optimizer, settings, images, classifier, processes)
        save = partial(save_state, options.output, head, optimizer, progress, settings, processes)

        # Batches of region features, of random crops or of centre crops, and the classifier if there is none.
        check_stop = partial(leave_if_asked, wish)
        extract = partial(extract_regions, backbone, options.L)
        if classifier is None and not options.resume:
            save()  # --resume continues from here on
        source = open_source(options, settings, images, extract, processes, check_stop)
        if classifier is None:
            made_for, made_with = backbone_record(network), feature_settings(settings)
            classifier = train_first_stage(
                options, made_for, made_with, images, source, progress, processes, check_stop
            )
            save(classifier=classifier.state())
        save = partial(save, classifier=classifier.state() if options.images else None)

        model = AttentionClassifier(head, classifier.weight, classifier.bias).to(device)
        train_head(options, model, optimizer, source, progress, processes, wish, save, best)
        if processes.leads and progress.reports:
            training_report.draw_curves(options.output, progress.reports)
    return progress.reports


def begin(
    options: TrainingOptions,
    head: ContextAwareRegionalAttention,
    optimizer: Optimizer,
    settings: Mapping[str, Setting],
    images: ClassifiedImages,
    classifier: Classifier | None,
    processes: Processes,
) -> tuple[Progress, Classifier | None]:
    """Return progress and classifier to continue with, and write all options into the output folder.

    With --resume, the saved state is loaded into the head and the optimizer.

    Raises:
        UserError: the state to resume is missing or unreadable, or was saved with other settings.
    """
    make_folder(options.output)
    progress = Progress()
    if options.resume:
        progress = load_state(options.output, head, optimizer, settings, processes)
        if options.images is not None:
            shape = (len(images.classes), options.spec.channels)
            classifier = resume_classifier(options.output, *shape, classifier)
    if processes.leads:  # without resume, so that --config starts a new training
        training_report.write_settings(options.output, to_json(options) | {"resume": False})
    return progress, classifier


def train_first_stage(
    options: TrainingOptions,
    made_for: Mapping[str, str],
    made_with: Mapping[str, Setting],
    images: ClassifiedImages,
    source: BatchSource,
    progress: Progress,
    processes: Processes,
    check_stop: Callable[[], None],
) -> Classifier:
    """Train a classifier of frozen features with equal weights for all regions, report it and write it.

    Args:
        options: options of the training.
        made_for: the record of the backbone.
        made_with: the settings that the features depend on.
        images: images to train and to validate with.
        source: the source of the features.
        progress: progress of the training, to which unreadable images are added.
        processes: processes that share the images.
        check_stop: called after each batch and each step of the fit; it may raise.

    Raises:
        UserError: too many of the training images are unreadable, or a file cannot be written.
    """
    features = compute_centre_features(
        source,
        options.output / CLASSIFIER_FEATURES,
        {**made_with, **made_for, "precompute": options.precompute is not None},
        processes,
        check_stop,
    )
    note_unreadable(progress, features.unreadable_training_images(source), source.training_images)
    classifier, report = train_classifier(
        source,
        features,
        images.classes,
        options.spec.channels,
        options.classifier_steps,
        processes,
        check_stop,
    )
    if processes.leads:
        shown = {"classes": len(images.classes), "split": images.split, **report}
        print(json.dumps(shown), flush=True)
        save_classifier(options.output / CLASSIFIER, classifier, {**made_for, **shown})
    return classifier


def train_head(
    options: TrainingOptions,
    model: AttentionClassifier,
    optimizer: Optimizer,
    source: BatchSource,
    progress: Progress,
    processes: Processes,
    wish: StopWish,
    save: Callable[[], None],
    best: BestHead,
) -> None:
    """Train the head, and validate and save it every `checkpoint_every` steps.

    Raises:
        UserError: the loss is not finite, too many images are unreadable, or a file cannot be written.
        SystemExit: SIGTERM or Ctrl-C stopped the training, after its state was saved.
    """
    head = model.attention
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
                    write_report(options.output, head, progress, best)
                progress.clear_sums()
            save()
            if stop:
                log.warning("stopped after step %d; --resume continues from there", progress.step)
                raise SystemExit(wish.exit_status())


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
        if path not in progress.unreadable:
            progress.unreadable.append(path)
            log.warning("note: left out %s, which cannot be decoded", path)
    check_unreadable(progress.unreadable, images, MOST_UNREADABLE, "training images")


def write_report(
    output: Path, head: ContextAwareRegionalAttention, progress: Progress, best: BestHead
) -> None:
    """Print the newest report, and write the reports and the head's weights.

    Raises:
        UserError: a file cannot be written.
    """
    newest = progress.reports[-1]
    print(json.dumps(newest), flush=True)
    training_report.write_weights(output, head, int(newest["report"]), newest["val_accuracy"])
    best.write(progress.reports)
    training_report.write_log(output, progress.reports)
    training_report.write_tensorboard(output, newest)


def check_output(options: TrainingOptions) -> None:
    """Check that the output folder can be written to, and holds no other training.

    Raises:
        UserError: the folder cannot be written to, or holds the state of a training that is not resumed.
    """
    check_writable(options.output)
    written = [TRAINING_STATE] + ([CLASSIFIER] if options.images and options.classifier is None else [])
    for path in (options.output / name for name in written):
        if not options.resume and path.exists():
            raise UserError(f"{path} is of an earlier training: --resume, or another --output")


def leave_if_asked(wish: StopWish) -> None:
    """Leave the program if SIGTERM or Ctrl-C came before the first step of the head.

    Raises:
        SystemExit: one of them came.
    """
    if wish.signal_number:
        log.warning("stopped before the first step; the features so far are kept")
        raise SystemExit(wish.exit_status())


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
