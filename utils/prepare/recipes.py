"""Recipes of the data sets: their archives, mirrors and folders."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.backbones.registry import AUTHORS_BACKBONE
from utils.data.imagenet_validation import KAGGLE_LABELS
from utils.data.oxford_paris import CORRUPT_PARIS_IMAGES
from utils.data.published_sets import REVISITED_FILES
from utils.file_names import ATTENTION_WEIGHTS, IMAGES_FOLDER, LABELS_FOLDER, PCA_COMPONENTS, PCA_MEAN
from utils.images.listing import IMAGE_SUFFIXES, is_thumbnail

OXFORD = "www.robots.ox.ac.uk/~vgg/data/oxbuildings"
PARIS = "www.robots.ox.ac.uk/~vgg/data/parisbuildings"
REVISITED = "cmp.felk.cvut.cz/revisitop/data/datasets"
R1M, R1M_ARCHIVES, R1M_IMAGES = "revisitop1m", 100, "ptak.felk.cvut.cz/revisitop/revisitop1m/jpg"
"""Name, number of archives and address of the distractors of the revisited sets. No digests are published."""

IMAGENET_PAGE = "https://www.image-net.org/download-images.php, which asks for a registration"
VALIDATION_LABELS = Path("val", "labels")
CAFFE_LABELS, DEVKIT_LABELS, DEVKIT_CLASSES = "val.txt", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
"""Files of the validation labels of ImageNet: of Caffe, and of the development kit."""

LANDMARK_PAGE = "any photographs of buildings will do, yours or those of a landmark data set"


@dataclass(frozen=True)
class Part:
    """A folder of a data set, and the archives that fill it."""

    folder: Path
    """The folder in the folder of the data set."""
    wanted: re.Pattern[str]
    """Pattern of the paths in an archive of the files to unpack, matched at the start."""
    archives: tuple[tuple[str, ...], ...] = ()
    """Mirrors of each archive; empty if it cannot be downloaded."""
    files: int = 0
    """The number of files; 0 if it varies."""
    ask: str = ""
    """Source of an archive that cannot be downloaded."""
    relocate: Callable[[PurePosixPath], PurePosixPath | None] = lambda name: PurePosixPath(name.name)
    """Function from the path in the archive to the path in the folder."""
    inner: re.Pattern[str] | None = None
    """Pattern of the archives inside the archive, if the files are in them."""
    optional: frozenset[str] = frozenset()
    """Names, without suffix, of the files that no script reads."""
    is_named: bool = False
    """True if an archive of the user is recognised by its name, not by the files in it."""

    @property
    def needed(self) -> int:
        """The number of files of a complete folder, without optional files; 0 if it varies."""
        return self.files - len(self.optional)

    def count_needed(self, folder: Path) -> int:
        """Return the number of files in a folder, without optional files."""
        return sum(1 for path in folder.iterdir() if path.stem not in self.optional)

    def recognises(self, name: str) -> bool:
        """Return True if an archive with a file of this name belongs to this part."""
        return bool(self.wanted.match(name) or (self.inner and self.inner.match(name)))

    def is_download(self, archive: Path) -> bool:
        """Return True if a file has the name of one of the downloaded archives."""
        return any(url.rsplit("/", 1)[-1] == archive.name for mirrors in self.archives for url in mirrors)

    def target_path(self, name: PurePosixPath) -> PurePosixPath | None:
        """Return the path in the folder of a file in an archive; None if the file is not part of it."""
        return self.relocate(name) if self.wanted.match(str(name)) else None


def _mirrors(*addresses: str) -> tuple[str, ...]:
    """Return the URLs of each address, first with https, then with http."""
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
    """Return the pattern of label files; both sets have five queries for each of eleven landmarks."""
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
"""Maximum characters of a file name; file systems allow 255 bytes."""


def _flatten(name: PurePosixPath) -> PurePosixPath | None:
    if any(map(is_thumbnail, (*name.parent.parts, name.stem))):
        return None
    return PurePosixPath("_".join(name.parts)[-LONGEST_NAME:])


def _by_class(name: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(name.name.split("_")[0], name.name)


# The archive of Kaggle has another val.txt, without labels, in ImageSets/CLS-LOC.
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
            relocate=_by_class,
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
    R1M: tuple(
        Part(
            _JPG / f"{R1M}.{number}",
            re.compile(r"(?i)(.*/)?[^/.][^/]*\.jpe?g$"),
            (_mirrors(f"{R1M_IMAGES}/{R1M}.{number}.tar.gz")[::-1],),
            relocate=lambda name: name,
            is_named=True,
        )
        for number in range(1, R1M_ARCHIVES + 1)
    ),
    "Landmark": (
        Part(
            Path("train", "data"),
            re.compile(rf"(?i)(.*/)?[^/.][^/]*({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})$"),
            ask=LANDMARK_PAGE,
            relocate=_flatten,
        ),
    ),
}
"""Name of a data set to its parts."""

SAME_IMAGES = {"ROxford": "Oxford", "RParis": "Paris", "Oxford": "ROxford", "Paris": "RParis"}
"""Data set to another one with the same images, which are linked instead of downloaded again."""

REVISITED_LABELS = {
    "ROxford": (REVISITED_FILES["ROxford"], _mirrors(f"{REVISITED}/roxford5k/gnd_roxford5k.pkl")[::-1]),
    "RParis": (REVISITED_FILES["RParis"], _mirrors(f"{REVISITED}/rparis6k/gnd_rparis6k.pkl")[::-1]),
}
"""Revisited set to the file name and the mirrors of its labels."""

WITH_DISTRACTORS = {
    "Oxford": "Oxford105k",
    "Paris": "Paris106k",
    "ROxford": "ROxford1M",
    "RParis": "RParis1M",
}
"""Data set to its name with distractors."""

WITH_R1M = {"ROxford1M": "ROxford", "RParis1M": "RParis"}
"""Data set with the distractors of R1M to the one without."""

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

ATTENTION_HEAD = Part(
    Path(),
    re.compile(re.escape(ATTENTION_WEIGHTS)),
    (
        (
            "https://raw.githubusercontent.com/jaeyoon1603/Retrieval-RegionalAttention/"
            f"59211f53ede705d1d3f03f73e3a46b9f52b7841b/weights/{ATTENTION_WEIGHTS}",
        ),
    ),
)
"""The attention head of weights.tar, in the authors' repository."""

ATTENTION_HEAD_SHA256 = "038e6a852e3b64a9b3b9dc6b105047e04b65cf36f4b1df99fbb9d692ec704f8e"

_IMPORTED_FEATURES = "imagenet-caffe-resnet101-features-10a101d.pth"
IMPORTED_FEATURES = Part(
    Path(),
    re.compile(re.escape(_IMPORTED_FEATURES)),
    (_mirrors(f"cmp.felk.cvut.cz/cnnimageretrieval/data/networks/imagenet/{_IMPORTED_FEATURES}")[::-1],),
)
"""Another import of the Caffe weights of the authors' backbone, by cnnimageretrieval-pytorch."""

IMPORTED_FEATURES_DIGITS = "10a101d"
"""First digits of a checksum of this file, which are part of its name."""

COMPUTE_AP = _mirrors(f"{OXFORD}/compute_ap.cpp")
