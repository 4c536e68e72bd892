"""What a training starts from: its images, its classifier if there is one, and its source of batches."""

import logging
from collections.abc import Callable
from typing import cast

from utils.data.imagenet import FOLDER, read_training_images, read_validation_images
from utils.data.labelled_images import ClassifiedImages, read_classified_images
from utils.descriptors.settings import digest
from utils.device import suitable_workers
from utils.errors import UserError
from utils.files.records import Setting
from utils.processes import Processes
from utils.training.batches import (
    BatchSource,
    Draws,
    Extract,
    StoredFeatures,
    crop_source,
    stored_source,
)
from utils.training.crops import CropSettings
from utils.training.options import TrainingOptions
from utils.weights.backbone_weights import read_backbone_weights
from utils.weights.classifiers import Classifier, read_classifier
from utils.weights.networks import load_classifier

log = logging.getLogger(__name__)


def load_given_classifier(options: TrainingOptions) -> Classifier | None:
    """Return the classifier of ImageNet's classes or of --classifier; None if it has to be trained.

    Raises:
        UserError: the classifier is missing or unreadable, or is for another backbone.
    """
    if options.images is None:
        return Classifier(*load_classifier(options))
    if options.classifier is None:
        return None
    return read_classifier(options.classifier, options.spec.channels, backbone_record(options))


def read_images(
    options: TrainingOptions, classifier: Classifier | None, processes: Processes
) -> ClassifiedImages:
    """Return the images to train and to validate with: of ImageNet, or of the classes in --images.

    Raises:
        UserError: images or labels are missing, or the classifier lacks a label.
    """
    seed = options.seed
    if options.images is None:
        folder, count = options.datasets_dir / FOLDER, len(cast(Classifier, classifier).bias)
        training = read_training_images(folder, count)
        validation = read_validation_images(folder, count, options.val_images, seed)
        if len(validation.paths) < options.val_images and processes.leads:
            log.warning("note: there are only %d validation images; all are used", len(validation.paths))
        return ClassifiedImages(training, validation)
    names = None if classifier is None else classifier.classes
    images = read_classified_images(
        options.images, options.validation, share=options.validation_share, seed=seed, classes=names
    )
    if classifier is not None and len(classifier.bias) != len(images.classes):
        raise UserError(
            f"{options.classifier} has {len(classifier.bias)} classes without names, "
            f"but {options.images} has {len(images.classes)}: a classifier of these classes is needed"
        )
    log.info("%s; validation images: %s", images.summary, images.split)
    return images._replace(validation=images.validation.draw(options.val_images, seed))


def open_source(
    options: TrainingOptions,
    images: ClassifiedImages,
    extract: Extract,
    processes: Processes,
    check_stop: Callable[[], None],
) -> BatchSource:
    """Return the source of batches: random crops, or centre crops whose features are kept in a file.

    Args:
        options: options of the training.
        images: images to train and to validate with.
        extract: the frozen part of the model.
        processes: the processes that share each batch.
        check_stop: called between images while the features are computed.

    Raises:
        UserError: the file was made with other settings.
    """
    training, validation = images.training, images.validation
    crops = CropSettings(options.crop, *options.resize, options.interpolation)
    device_workers = suitable_workers(processes.device) if options.workers is None else options.workers
    draws = Draws(options.batch_size, device_workers, options.seed)
    if options.precompute is None:
        return crop_source(training, validation, crops, extract, processes, draws)
    store = StoredFeatures(options.precompute, feature_settings(options), options.spec.channels, check_stop)
    return stored_source(store, training, validation, crops, extract, processes, draws)


def feature_settings(options: TrainingOptions) -> dict[str, Setting]:
    """Return the settings that the features of centre crops depend on."""
    names = ("backbone", "L", "crop", "interpolation", "precision")
    return {name: options.saved_settings[name] for name in names}


def backbone_record(options: TrainingOptions) -> dict[str, str]:
    """Return the name of the backbone and a digest of its weights, for the record of a classifier.

    Raises:
        UserError: the weights are missing or unreadable.
    """
    state, _ = read_backbone_weights(options.spec, options.weights_dir, options.backbone_weights)
    return {"backbone": options.backbone, "backbone_weights": digest(state)}
