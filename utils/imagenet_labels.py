"""ImageNet's validation labels: from the forms that they are handed out in to the one list that is read."""

from pathlib import Path

from scipy.io import loadmat

from utils.atomic_files import replace_file
from utils.dataset_recipes import CAFFE_LABELS, DEVKIT_CLASSES, DEVKIT_LABELS, VALIDATION_LABELS
from utils.errors import UserError
from utils.imagenet import VALIDATION_LIST, read_wnids


def write_validation_list(folder: Path) -> None:
    """Writes val/val.txt, `<file name> <class index>` a line, from what came in the archives.

    Args:
        folder: ImageNet's.

    Raises:
        UserError: the labels are incomplete or malformed.
    """
    listing, labels = folder / VALIDATION_LIST, folder / VALIDATION_LABELS
    if listing.exists():
        return
    if (labels / CAFFE_LABELS).exists():
        text = (labels / CAFFE_LABELS).read_text(encoding="utf-8")
    else:
        text = from_devkit(labels / DEVKIT_LABELS, labels / DEVKIT_CLASSES)
    with replace_file(listing) as file:
        file.write(text.encode())


def from_devkit(labels: Path, classes: Path) -> str:
    """The list from the development kit's files.

    The kit numbers classes in an order of its own; an index here is the place of the class's wnid among the
    sorted ones.

    Args:
        labels: a number of a class for each validation picture, in their order.
        classes: the kit's meta.mat, which has the wnid of each number.

    Raises:
        UserError: a file is missing or malformed.
    """
    try:
        synsets = loadmat(classes, squeeze_me=True)["synsets"]
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        places = {wnid: place for place, wnid in enumerate(read_wnids())}
        indices = [places[wnids[int(line)]] for line in labels.read_text().split()]
    except OSError as error:
        raise UserError(f"{error.filename} is missing: the archive of the labels is another one") from error
    except Exception as error:  # a damaged .mat file makes its parser raise anything
        raise UserError(f"{classes} and {labels} are not those of ILSVRC 2012") from error
    return "".join(f"ILSVRC2012_val_{number:08d}.JPEG {index}\n" for number, index in enumerate(indices, 1))
