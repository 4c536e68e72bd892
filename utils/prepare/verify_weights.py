"""Verification of a backbone: that the preprocessing and the strides fit its weights."""

from pathlib import Path

from models.backbones.registry import DEFAULT_BACKBONE
from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER, MINI
from utils.images.listing import images_below
from utils.options.shared import BackboneOptions
from utils.prepare.weights import check_weights
from utils.weights.check_on_images import FEWEST_IMAGES, check_on_images
from utils.weights.preprocessing_check import PreprocessingCheck
from utils.weights.report import report_weights

PHOTOGRAPHS = (
    Path("ImageNet", "val", "data"),
    Path("Landmark", "train", "data"),
    *(Path(name, IMAGES_FOLDER) for name in ("Oxford", "ROxford", "Paris", "RParis", MINI)),
)
"""Folders of images in the folder of data sets, in order of preference. Mini's are drawn and come last."""


def verify_weights(options: BackboneOptions, images: Path | None, datasets_dir: Path) -> None:
    """Check the weights of a backbone and print the divergences that decide.

    The authors' files are checked one by one, too, unless the backbone or its weights are others.

    Args:
        options: the backbone and its weights.
        images: a folder of images; a data set if not given.
        datasets_dir: folder of the data sets.

    Raises:
        UserError: the preprocessing or the strides do not fit, a file is missing or unreadable, or there are
            too few images.
    """
    is_authors = options.backbone == DEFAULT_BACKBONE and options.backbone_weights is None
    if is_authors:
        for line in report_weights(options.weights_dir):
            print(line)
    folder = find_photographs(datasets_dir) if images is None else images
    count, check = check_on_images(options, images_below(folder).images, quick=False)
    if check is None:
        print(f"no verdict on {options.backbone}: it has no batch norms with statistics of the training")
    else:
        print(f"divergences of {options.backbone} on {count} images in {folder}")
        print_check(check)
        if (problem := check.problem()) is not None:
            raise UserError(f"the weights of {options.backbone}: {problem}")
        if not check.is_order_decided:
            print("these images do not decide the channel order: name mixed photographs with --images")
        print(f"the preprocessing fits the weights of {options.backbone}")
    if is_authors:
        check_weights(options.weights_dir)


def print_check(check: PreprocessingCheck) -> None:
    """Print the divergence of each preprocessing and of each move of strides, the least first."""
    for setting, divergence in sorted(check.divergences.items(), key=lambda item: item[1]):
        mark = " (as the backbone)" if setting == check.current else ""
        print(f"  {divergence:8.3f}  {setting}{mark}")
    for blocks, divergence in sorted(check.strides.items(), key=lambda item: item[1]):
        text = f"stride moved in {blocks}" if blocks else "strides as they are"
        print(f"  {divergence:8.3f}  all layers, {text}")


def find_photographs(datasets_dir: Path) -> Path:
    """Return the folder of a data set with images to compare.

    Raises:
        UserError: there is none.
    """
    for folder in PHOTOGRAPHS:
        path = datasets_dir / folder
        if path.is_dir() and len(images_below(path).images) >= FEWEST_IMAGES:
            return path
    raise UserError(
        f"no data set in {datasets_dir} has images to compare: name a folder of photographs with --images"
    )
