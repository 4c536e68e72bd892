"""Options that several scripts share."""

from pathlib import Path
from typing import Literal

from models.backbones.registry import BACKBONES, DEFAULT_BACKBONE, TIMM_PREFIX, backbone_spec
from models.backbones.spec import BackboneSpec
from models.poolings.attention_head import Activation
from models.poolings.gem import DEFAULT_P, LARGEST_P
from models.poolings.regions import MAX_LEVELS
from models.poolings.registry import DEFAULT_POOLING, POOLINGS, PoolingName, options_of
from utils.errors import UserError
from utils.file_names import DATASETS_DIR, WEIGHTS_DIR
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.text import shorten

Precision = Literal["float32", "bfloat16", "float16"]
StorePrecision = Literal["float32", "float16"]
SearchKind = Literal["exact", "faiss-flat", "faiss-ivfpq"]
RerankName = Literal["superglobal", "k-reciprocal", "regions", "geometry"]

COUNTS = Range(1, 10**9)
LEVELS = Range(1, MAX_LEVELS)

MOST_SCALES = 100
SIDES = Range(1, 32768)
NEIGHBOURS = Range(0, 10**6)


@options_class
class BackboneOptions:
    """Options of all jobs that use a backbone."""

    title = "network"

    weights_dir: Path = option(default=WEIGHTS_DIR, help="folder of the weight files")
    backbone: str = option(
        default=DEFAULT_BACKBONE,
        help=f"frozen network: {', '.join(BACKBONES)}, or {TIMM_PREFIX} and the name of a network in timm",
        metavar="NAME",
        binding=True,
    )
    backbone_weights: Path | None = option(
        default=None,
        help="state dict of the backbone, .pth or .safetensors; the published weights if not given",
        metavar="FILE",
    )
    precision: Precision = option(default="float32", help="number type of the backbone", binding=True)
    L: int = option(default=5, help="number of R-MAC levels", valid=LEVELS, binding=True)

    @property
    def spec(self) -> BackboneSpec:
        """Description of the backbone."""
        return backbone_spec(self.backbone)

    def check(self) -> None:
        """Check the name of the backbone.

        Raises:
            UserError: there is no such backbone.
        """
        try:
            backbone_spec(self.backbone)
        except ValueError as error:
            raise UserError(str(error)) from error


@options_class
class HeadOptions:
    """Options of the attention head."""

    title = "attention"

    activation: Activation = option(
        default="tanh", help="function between the layers of the attention head", binding=True
    )


@options_class
class ImageOptions:
    """Options of the images that the network describes."""

    title = "images"

    S: int | None = option(
        default=None,
        help="longer side of the resized image, in pixels; the backbone's if not given",
        valid=SIDES,
        binding=True,
    )
    batch_size: int | None = option(
        default=None,
        help="largest number of images per batch; chosen for the device if not given",
        valid=Range(1, 65536),
    )


@options_class
class DescriptorOptions(BackboneOptions, HeadOptions, ImageOptions):
    """All options that a descriptor depends on."""

    title = "descriptors"

    pooling: PoolingName = option(
        default=DEFAULT_POOLING,
        help="of regions: regional attention, R-MAC (equal weights) or GeM (equal weights); "
        "of the entire map: MAC (maximum), SPoC (mean) or GeM (generalised mean)",
        binding=True,
    )
    gem_p: float = option(
        default=DEFAULT_P,
        help="exponent of GeM: 1 for the mean, and towards the maximum as it grows",
        valid=Range(1, LARGEST_P),
        binding=True,
    )
    scales: tuple[float, ...] = option(
        default=(1.0,),
        help="factors, such as 0.7071,1,1.4142, by which each image is resized; its descriptors are averaged",
        valid=Range(0, 16, exclude_least=True),
        metavar="SCALE,...",
        binding=True,
    )
    whiten: bool = option(default=True, help="leave the PCA whitening out", flag="--no-whiten", binding=True)

    @property
    def longer_side(self) -> int:
        """S, or the backbone's default."""
        return self.spec.longer_side if self.S is None else self.S

    @property
    def poolings(self) -> tuple[PoolingName, ...]:
        """The poolings to describe images by."""
        return (self.pooling,)

    def check(self) -> None:
        """Check the number of scales, and that a pooling uses the exponent if it is not the default.

        Raises:
            UserError: there are no or too many scales, or the exponent has no effect.
        """
        if not 1 <= len(self.scales) <= MOST_SCALES:
            expected = f"a list of 1 to {MOST_SCALES} numbers, each greater than 0, 16 at most"
            raise UserError(f"scales {shorten(self.scales)} is not {expected}")
        if self.gem_p != DescriptorOptions.gem_p and "gem_p" not in options_of(self.poolings):
            names = " or ".join(name for name in POOLINGS if "gem_p" in options_of([name]))
            raise UserError(f"gem_p {self.gem_p} has no effect without GeM: choose pooling {names}")


@options_class
class DeviceOptions:
    """Options of the device and of the processes that decode images."""

    title = "run"

    device: str = option(default="auto", help="auto, cpu, cuda, or one GPU as cuda:1")
    workers: int | None = option(
        default=None,
        help="worker processes that decode images, 0 to decode in the main process; chosen for the device if "
        "not given",
        valid=Range(0, 1024),
    )


@options_class
class RunOptions(DeviceOptions):
    """Options of jobs that read data sets."""

    datasets_dir: Path = option(default=DATASETS_DIR, help="folder of the data sets")
    seed: int = option(default=0, help="seed of all random draws", valid=Range(0, 2**32 - 1), binding=True)
    compile: bool = option(default=False, help="compile the backbone with torch.compile")


@options_class
class StoreOptions:
    """Options of the descriptor store."""

    title = "descriptor store"

    descriptors: Path | None = option(
        default=None,
        help="folder that keeps each descriptor: the next run uses them, also after a killed run",
    )
    store_precision: StorePrecision = option(
        default="float32", help="number type of the descriptors in the store"
    )

    def check(self) -> None:
        """Check that --store-precision comes with --descriptors.

        Raises:
            UserError: it does not.
        """
        if self.store_precision != StoreOptions.store_precision and self.descriptors is None:
            raise UserError(
                f"store_precision {self.store_precision} has no effect without a store: "
                "name its folder by descriptors"
            )


@options_class
class RerankOptions:
    """Options of the re-ranking of the first images of a search."""

    title = "re-ranking"

    rerank: int = option(
        default=0,
        help="first images that are re-ranked after each search; 0 for none",
        valid=Range(0, 10_000),
    )
    rerank_by: tuple[RerankName, ...] = option(
        default=("k-reciprocal",),
        help="re-rankings of the first images, each applied to the searches, not one after another",
        metavar="METHOD,...",
    )
    rerank_neighbours: int | None = option(
        default=None,
        help="neighbours per image in the re-rankings superglobal and k-reciprocal; chosen if not given",
        valid=Range(1, 10_000),
    )

    def check(self) -> None:
        """Check that the methods differ, and that no option lacks the other without which it has no effect.

        Raises:
            UserError: a method is given twice, or an option has no effect.
        """
        names = ",".join(self.rerank_by)
        if not self.rerank_by or len(set(self.rerank_by)) < len(self.rerank_by):
            raise UserError(f"rerank_by {names} is not a list of different re-rankings")
        if self.rerank_by != RerankOptions.rerank_by and not self.rerank:
            raise UserError(f"rerank_by {names} has no effect without rerank: give both")
        uses_neighbours = self.rerank and not {"superglobal", "k-reciprocal"}.isdisjoint(self.rerank_by)
        if self.rerank_neighbours is not None and not uses_neighbours:
            raise UserError(
                f"rerank_neighbours {self.rerank_neighbours} has no effect without re-ranking by superglobal "
                "or k-reciprocal: leave it out"
            )


@options_class
class SearchOptions(RerankOptions):
    """Options of the search, query expansion, database augmentation, diffusion and re-ranking."""

    title = "search"

    search: SearchKind = option(default="exact", help="exact search, or an index of FAISS")
    qe: int = option(
        default=5, help="images averaged with the query for query expansion; 0 for none", valid=NEIGHBOURS
    )
    alpha: float = option(
        default=0.0,
        help="weight of each image in query expansion: this power of its similarity; 0 for equal weights",
        valid=Range(0, 100),
    )
    dba: int = option(
        default=0,
        help="nearest neighbours averaged with each database image before the search; 0 for none",
        valid=NEIGHBOURS,
    )
    diffusion: int = option(
        default=0,
        help="neighbours of each image in the graph of an additional search by diffusion; 0 for none",
        valid=NEIGHBOURS,
    )
    diffusion_alpha: float = option(
        default=0.99,
        help="share of the similarity that diffusion passes on per step; smaller for small databases",
        valid=Range(0, 1, exclude_most=True),
    )
    exact_neighbours: int | None = option(
        default=None,
        help="largest number of images whose neighbours, for --dba and --diffusion, are exact; the "
        "neighbours in larger sets are approximated with FAISS. No limit if not given",
        valid=COUNTS,
    )

    def check(self) -> None:
        """Check that no option lacks the other option without which it has no effect.

        Raises:
            UserError: an option has no effect.
        """
        if self.alpha != SearchOptions.alpha and not self.qe:
            raise UserError(f"alpha {self.alpha} has no effect without query expansion: leave one out")
        if self.diffusion_alpha != SearchOptions.diffusion_alpha and not self.diffusion:
            raise UserError(
                f"diffusion_alpha {self.diffusion_alpha} has no effect without diffusion: give both"
            )
        if self.exact_neighbours is not None and not (self.dba or self.diffusion):
            raise UserError(
                f"exact_neighbours {self.exact_neighbours} has no effect without augmentation and diffusion: "
                "give dba or diffusion, or leave it out"
            )
