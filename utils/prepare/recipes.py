"""What each data set consists of: its archives, where they come from and where their files go."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.backbones import AUTHORS_BACKBONE
from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES
from utils.data.published import REVISITED_FILES
from utils.file_names import ATTENTION_WEIGHTS, IMAGES_FOLDER, LABELS_FOLDER, PCA_COMPONENTS, PCA_MEAN
from utils.images.listing import IMAGE_SUFFIXES, is_thumbnail

OXFORD = "www.robots.ox.ac.uk/~vgg/data/oxbuildings"
PARIS = "www.robots.ox.ac.uk/~vgg/data/parisbuildings"
REVISITED = "cmp.felk.cvut.cz/revisitop/data/datasets"

IMAGENET_PAGE = "https://www.image-net.org/download-images.php, which asks for a registration"
VALIDATION_LABELS = Path("val", "labels")
CAFFE_LABELS, DEVKIT_LABELS, DEVKIT_CLASSES = "val.txt", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
KAGGLE_LABELS = "LOC_val_solution.csv"
"""Labels of ImageNet's validation images as they come: Caffe's, the development kit's, or Kaggle's."""

LANDMARK_PAGE = "any photographs of buildings will do, yours or those of a landmark data set"


@dataclass(frozen=True)
class Part:
    """Archives that fill one folder of a data set.

    `wanted` matches, from its beginning, the path in an archive of each file that belongs here; `place` gives
    that file's path in the folder. `archives` are the mirrors of each archive to be downloaded, none where
    it cannot be, and then `ask` says where to ask for it. `files` is how many files there are, 0 if that
    varies. `optional` are the names, without suffix, of those among them that no job reads.
    """

    folder: Path
    wanted: re.Pattern[str]
    archives: tuple[tuple[str, ...], ...] = ()
    files: int = 0
    ask: str = ""
    place: Callable[[PurePosixPath], PurePosixPath | None] = lambda name: PurePosixPath(name.name)
    inner: re.Pattern[str] | None = None
    """Matches the archives inside the archive that the files lie in; None where they lie in it themselves."""

    optional: frozenset[str] = frozenset()

    @property
    def needed(self) -> int:
        """Number of files without which the folder is incomplete, 0 if that varies."""
        return self.files - len(self.optional)

    def count_needed(self, folder: Path) -> int:
        """Return how many files of a folder, the optional ones left out, there are."""
        return sum(1 for path in folder.iterdir() if path.stem not in self.optional)

    def recognises(self, name: str) -> bool:
        """Whether a file of this name says that its archive belongs to this part."""
        return bool(self.wanted.match(name) or (self.inner and self.inner.match(name)))

    def placed(self, name: PurePosixPath) -> PurePosixPath | None:
        """Where a file of an archive goes in the folder; None if it does not belong here."""
        return self.place(name) if self.wanted.match(str(name)) else None


def _mirrors(*addresses: str) -> tuple[str, ...]:
    """Each address over https, then over http."""
    return tuple(f"{scheme}://{address}" for address in addresses for scheme in ("https", "http"))


_JPG = Path(IMAGES_FOLDER)
_LAB = Path(LABELS_FOLDER)
_OXFORD_QUERIES = (
    "all_souls|ashmolean|balliol|bodleian|christ_church|cornmarket|hertford|keble|magdalen|pitt_rivers|"
    "radcliffe_camera"
)
_PARIS_QUERIES = (
    "defense|eiffel|invalides|louvre|moulinrouge|museedorsay|notredame|pantheon|pompidou|sacrecoeur|triomphe"
)


def _labels(queries: str) -> re.Pattern[str]:
    """What the label files of some queries are called: both sets have five of each of eleven landmarks."""
    return re.compile(rf"(.*/)?({queries})_\d_(query|good|ok|junk)\.txt$")


_OXFORD_IMAGES = Part(
    _JPG,
    re.compile(r"(.*/)?(?!paris_)[a-z_]+_\d{6}\.jpg$"),
    (_mirrors(f"{OXFORD}/oxbuild_images-v1.tgz", f"{OXFORD}/oxbuild_images.tgz"),),
    files=5063,
)
_PARIS_IMAGES = Part(
    _JPG,
    re.compile(r"(.*/)?paris_[a-z]+_\d{6}\.jpg$"),
    (
        _mirrors(f"{PARIS}/paris_1-v1.tgz", f"{PARIS}/paris_1.tgz"),
        _mirrors(f"{PARIS}/paris_2-v1.tgz", f"{PARIS}/paris_2.tgz"),
    ),
    files=6412,
    optional=CORRUPT_PARIS_IMAGES,
)


LONGEST_NAME = 120
"""Characters of a file name; file systems allow 255 bytes."""


def _all_but_slashes(name: PurePosixPath) -> PurePosixPath | None:
    if any(map(is_thumbnail, (*name.parent.parts, name.stem))):
        return None
    return PurePosixPath("_".join(name.parts)[-LONGEST_NAME:])


def _by_class(name: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(name.name.split("_")[0], name.name)


# In Kaggle's ImageSets/CLS-LOC lies a val.txt that numbers the images, and labels none.
_IMAGENET_LABELS = (CAFFE_LABELS, DEVKIT_LABELS, DEVKIT_CLASSES, KAGGLE_LABELS)

RECIPES: dict[str, tuple[Part, ...]] = {
    "Oxford": (
        _OXFORD_IMAGES,
        Part(_LAB, _labels(_OXFORD_QUERIES), (_mirrors(f"{OXFORD}/gt_files_170407.tgz"),), files=220),
    ),
    "Paris": (
        _PARIS_IMAGES,
        Part(_LAB, _labels(_PARIS_QUERIES), (_mirrors(f"{PARIS}/paris_120310.tgz"),), files=220),
    ),
    "ROxford": (_OXFORD_IMAGES,),
    "RParis": (_PARIS_IMAGES,),
    "ImageNet": (
        Part(
            Path("train", "data"),
            re.compile(r"(.*/)?n\d{8}_\d+\.JPEG$"),
            ask=f"ILSVRC2012_img_train.tar, {IMAGENET_PAGE}",
            place=_by_class,
            inner=re.compile(r"(.*/)?n\d{8}\.tar$"),
        ),
        Part(
            Path("val", "data"),
            re.compile(r"(.*/)?ILSVRC2012_val_\d{8}\.JPEG$"),
            ask=f"ILSVRC2012_img_val.tar, {IMAGENET_PAGE}",
        ),
        Part(
            VALIDATION_LABELS,
            re.compile(rf"(?!(.*/)?ImageSets/)(.*/)?({'|'.join(map(re.escape, _IMAGENET_LABELS))})$"),
            ask=f"ILSVRC2012_devkit_t12.tar.gz, {IMAGENET_PAGE}; Caffe's caffe_ilsvrc12.tar.gz; or Kaggle's "
            f"{KAGGLE_LABELS}",
        ),
    ),
    "Landmark": (
        Part(
            Path("train", "data"),
            re.compile(rf"(?i)(.*/)?[^/.][^/]*({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})$"),
            ask=LANDMARK_PAGE,
            place=_all_but_slashes,
        ),
    ),
}
"""Each set's parts, by its name."""

ALIKE = {"ROxford": "Oxford", "RParis": "Paris", "Oxford": "ROxford", "Paris": "RParis"}
"""Sets of the same images, which are linked instead of downloaded a second time."""

REVISITED_LABELS = {
    "ROxford": (REVISITED_FILES["ROxford"], _mirrors(f"{REVISITED}/roxford5k/gnd_roxford5k.pkl")[::-1]),
    "RParis": (REVISITED_FILES["RParis"], _mirrors(f"{REVISITED}/rparis6k/gnd_rparis6k.pkl")[::-1]),
}
"""The labels of the revisited protocol: file name and mirrors."""

WITH_DISTRACTORS = {
    "Oxford": "Oxford105k",
    "Paris": "Paris106k",
    "ROxford": "ROxford1M",
    "RParis": "RParis1M",
}
"""What a set with distractors is called."""

AUTHORS_WEIGHTS = (
    AUTHORS_BACKBONE,
    ATTENTION_WEIGHTS,
    PCA_COMPONENTS,
    PCA_MEAN,
)
WEIGHTS = Part(
    Path(),
    re.compile(rf"(.*/)?({'|'.join(map(re.escape, AUTHORS_WEIGHTS))})$"),
    (("https://sglab.kaist.ac.kr/RegionalAttention/weights.tar",),),
    files=len(AUTHORS_WEIGHTS),
)

COMPUTE_AP = _mirrors(f"{OXFORD}/compute_ap.cpp")
