"""The options of a training."""

from pathlib import Path
from typing import cast

from utils.errors import UserError
from utils.file_names import WEIGHTS_DIR
from utils.files.records import Setting
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.saved_options import binding_settings
from utils.options.shared import COUNTS, SIDES, BackboneOptions, HeadOptions, RunOptions
from utils.training.crops import Interpolation


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
    imagenet: Path | None = option(
        default=None,
        help="folder of ImageNet, in any of its layouts; ImageNet in --datasets-dir if not given",
        metavar="DIR",
    )
    images: Path | None = option(
        default=None,
        help="images of other classes than ImageNet's: a folder with one folder per class, or a text file "
        "with one 'path label' per line",
    )
    validation: Path | None = option(
        default=None, help="validation images in the same form; a part of --images if not given"
    )
    validation_share: float = option(
        default=0.2,
        help="share of each class in --images to validate with",
        valid=Range(0, 1, exclude_least=True, exclude_most=True),
    )
    classifier: Path | None = option(
        default=None, help="classifier of the classes in --images; trained first if not given", metavar="FILE"
    )
    classifier_steps: int = option(
        default=200, help="largest number of steps of the training of that classifier", valid=COUNTS
    )
    precompute: Path | None = option(
        default=None, help="train on centre crops, whose region features are kept in this file"
    )
    output: Path = option(default=WEIGHTS_DIR, help="folder to write all files to")
    resume: bool = option(default=False, help="continue the training in --output")

    @property
    def saved_settings(self) -> dict[str, Setting]:
        """Options that must be the same when the training is resumed."""
        settings = cast(dict[str, Setting], binding_settings(self))
        settings["precompute"] = self.precompute is not None
        if self.images is not None and self.classifier is None:
            settings["classifier_steps"] = self.classifier_steps
        return settings

    def check(self) -> None:
        """Check the range of --resize, and that each given option has an effect.

        Raises:
            UserError: the range is empty, or begins below the side of the crop, or an option has no effect.
        """
        if min(self.resize) < self.crop or self.resize[0] > self.resize[1]:
            sides = " ".join(map(str, self.resize))
            raise UserError(f"--resize {sides} must be a range of sides no shorter than --crop {self.crop}")
        of_images = ("validation", "validation_share", "classifier", "classifier_steps")
        for applies, condition, names in (
            (self.images is None, "without --images", of_images),
            (self.images is not None, "with --images", ("datasets_dir", "imagenet")),
            (self.imagenet is not None, "with --imagenet", ("datasets_dir",)),
            (self.validation is not None, "with --validation", ("validation_share",)),
            (self.classifier is not None, "with --classifier", ("classifier_steps",)),
        ):
            for name in names:
                value = getattr(self, name)
                if applies and value != getattr(TrainingOptions, name):
                    raise UserError(
                        f"--{name.replace('_', '-')} {value} has no effect {condition}: leave it out"
                    )
