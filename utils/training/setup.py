"""What a training starts from: its images, its classifier if there is one, and its source of batches."""

import logging
from collections.abc import Callable, Mapping
from typing import cast

from utils.data.imagenet import FOLDER, read_training_images, read_wnids
from utils.data.imagenet_validation import read_validation_images
from utils.data.labelled_images import ClassifiedImages, read_classified_images
from utils.device import suitable_workers
from utils.errors import UserError
from utils.file_names import weights_folder
from utils.files.records import Setting
from utils.processes import Processes
from utils.saved_settings import BACKBONE_DIGEST
from utils.text import digest_of_names
from utils.training.batches import (
    BatchSource,
    Draws,
    Extract,
    StoredFeatures,
    crop_source,
    stored_source,
)
from utils.training.best_head import BestHead
from utils.training.crops import CropSettings
from utils.training.options import TrainingOptions
from utils.weights.classifiers import Classifier, read_classifier
from utils.weights.network_record import Facts, Network, PartWriter
from utils.weights.networks import load_classifier

log = logging.getLogger(__name__)


def load_given_classifier(options: TrainingOptions, network: Network) -> Classifier | None:
    """Return the classifier of ImageNet's classes or of --classifier; None if it has to be trained.

    Args:
        options: options of the training.
        network: the frozen network that the classifier has to be made for.

    Raises:
        UserError: the classifier is missing or unreadable, or is for another backbone.
    """
    if options.images is None:
        return load_classifier(options)
    if options.classifier is None:
        return None
    return read_classifier(options.classifier, network.channels, backbone_record(network))


def read_images(
    options: TrainingOptions, classifier: Classifier | None, processes: Processes
) -> ClassifiedImages:
    """Return the images to train and to validate with: of ImageNet, or of the classes in --images.

    Raises:
        UserError: images or labels are missing, or the classifier lacks a label.
    """
    seed = options.seed
    if options.images is None:
        folder = options.datasets_dir / FOLDER if options.imagenet is None else options.imagenet
        count = len(cast(Classifier, classifier).bias)
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


def best_head(
    options: TrainingOptions, network: Network, images: ClassifiedImages, classifier: Classifier | None
) -> BestHead:
    """Return the writer of the best head into the folder of the backbone, below the output folder.

    Args:
        options: options of the training.
        network: the frozen network that the head is trained for.
        images: images to train and to validate with.
        classifier: the classifier; None if it has to be trained.

    Raises:
        UserError: the folder has a record of another network.
    """
    names = images.classes or read_wnids()
    classes = len(names) if classifier is None else len(classifier.bias)
    facts: Facts = {"S": options.crop, "L": options.L, "activation": options.activation, "classes": classes}
    if classes == len(names):
        facts["class_names"] = digest_of_names(names)
    folder = weights_folder(options.output, options.backbone)
    best = BestHead(options.output, PartWriter(folder, network, "attention", facts))
    best.check()
    return best


def open_source(
    options: TrainingOptions,
    settings: Mapping[str, Setting],
    images: ClassifiedImages,
    extract: Extract,
    processes: Processes,
    check_stop: Callable[[], None],
) -> BatchSource:
    """Return the source of batches: random crops, or centre crops whose features are kept in a file.

    Args:
        options: options of the training.
        settings: all settings that a resumed training must share.
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
    store = StoredFeatures(options.precompute, feature_settings(settings), options.spec.channels, check_stop)
    return stored_source(store, training, validation, crops, extract, processes, draws)


def feature_settings(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return those settings of a training that the features of centre crops depend on."""
    names = ("backbone", BACKBONE_DIGEST, "L", "crop", "interpolation", "precision")
    return {name: settings[name] for name in names}


def backbone_record(network: Network) -> dict[str, str]:
    """Return the name of the backbone and the digest of its weights, for the record of a classifier."""
    return {"backbone": network.backbone, "backbone_digest": network.backbone_digest}
