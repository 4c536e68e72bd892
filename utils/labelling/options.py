"""Options of the command `labels` of Prepare_Datasets.py."""

from pathlib import Path

from utils.file_names import DATASETS_DIR
from utils.options.option import Range
from utils.options.options_class import option, options_class, redefault
from utils.options.shared import RunOptions


@options_class
class LabelsOptions:
    """Options of a data set made from a user's images."""

    title = "labels"

    folder: Path = option(
        help="folder with one folder of images per object, or with the images that --csv names",
        positional=True,
        kw_only=False,
    )
    csv: Path | None = option(
        default=None,
        help="table with the columns query, image, label and, for boxes, x1, y1, x2, y2",
        metavar="FILE",
    )
    name: str | None = option(default=None, help="name of the data set; the name of the folder if not given")
    queries: int | None = option(
        default=None,
        help="largest number of queries per object, drawn by --seed; each image is a query if not given",
        valid=Range(1, 10**6),
        metavar="N",
    )
    datasets_dir: Path = redefault(RunOptions, "datasets_dir", DATASETS_DIR)
    seed: int = redefault(RunOptions, "seed", 0)
