"""Options of the commands of Search_Images.py."""

from pathlib import Path

from models.poolings.registry import PoolingName
from utils.errors import UserError
from utils.file_names import (
    PROJECT_WEIGHTS_DIR,
    SEARCH_INDEX,
)
from utils.image_index.milvus import Address, check_address
from utils.options.option import Range
from utils.options.options_class import option, options_class, redefault
from utils.options.shared import (
    COUNTS,
    DescriptorOptions,
    DeviceOptions,
    RerankOptions,
    StoreOptions,
    StorePrecision,
)

ROUNDING = 0.00005
"""Half of the last printed digit of a similarity. Similarities that are less by no more than this count as
equal to the least similarity of an option: of a descriptor and itself, rounding can make 0.99999994."""


@options_class
class DescribeOptions(DescriptorOptions, DeviceOptions):
    """Options of the description of images."""

    weights_dir: Path = redefault(DescriptorOptions, "weights_dir", PROJECT_WEIGHTS_DIR)
    # This backbone needs no download.
    backbone: str = redefault(DescriptorOptions, "backbone", "efficientnet_lite0")


@options_class
class MilvusOptions:
    """Options of an index in Milvus."""

    title = "Milvus"

    milvus: str | None = option(
        default=None,
        help="keep the index in Milvus: a local database, as photos.db, or the address of a server",
        metavar="URI",
    )
    collection: str = option(default="photos", help="name of the collection in Milvus", metavar="NAME")

    @property
    def address(self) -> Address | None:
        """The collection in Milvus, if the index is there."""
        return None if self.milvus is None else Address(self.milvus, self.collection)

    def check(self) -> None:
        """Check the address.

        Raises:
            UserError: it is not valid, or --collection has no effect.
        """
        if self.address is not None:
            check_address(self.address)
        elif self.collection != MilvusOptions.collection:
            raise UserError(f"collection {self.collection} has no effect without milvus: give both")


@options_class
class ExcludeOptions:
    """Option of the images to leave out."""

    title = "images"

    exclude: tuple[str, ...] = option(
        default=(),
        help="leave out images by name or folder, such as '*.png' or drafts; can be given several times",
        metavar="PATTERN",
        repeated=True,
    )

    def check(self) -> None:
        """Check the patterns.

        Raises:
            UserError: one is empty.
        """
        if not all(pattern.strip("/") for pattern in self.exclude):
            raise UserError("exclude has an empty pattern: name files or folders, such as '*.png'")


@options_class
class IndexOptions(DescribeOptions, MilvusOptions, ExcludeOptions):
    """Options of the command `index`."""

    title = "index"

    folder: Path = option(help="folder of images, searched recursively", positional=True, kw_only=False)
    index: Path = option(default=SEARCH_INDEX, help="folder of the index")
    store_precision: StorePrecision = redefault(StoreOptions, "store_precision", "float32")
    approximate: bool = option(
        default=False,
        help="make an approximate index (FAISS), which is faster in large folders; later runs update it",
    )

    def check(self) -> None:
        """Check that no option is given that has no effect in Milvus.

        Raises:
            UserError: an option has no effect.
        """
        if self.milvus is not None and self.approximate:
            raise UserError("approximate has no effect in Milvus: leave one out")
        if self.milvus is not None and self.store_precision != "float32":
            raise UserError(f"store_precision {self.store_precision} has no effect in Milvus: leave one out")


@options_class
class MatchOptions(MilvusOptions, ExcludeOptions, RerankOptions):
    """Options of a search for images."""

    title = "query"

    box: tuple[float, float, float, float] | None = option(
        default=None,
        help="part of the image to search for, in its pixels; for one image",
        valid=Range(-1_000_000, 1_000_000),
        metavar=("x1", "y1", "x2", "y2"),
    )
    index: Path = option(default=SEARCH_INDEX, help="folder of the index")
    top: int = option(default=20, help="largest number of matches", valid=COUNTS)
    min_similarity: float | None = option(
        default=None, help="least similarity of a match; no limit if not given", valid=Range(-1, 1)
    )
    exact: bool = option(default=False, help="compare all images, although the index is approximate")
    weights_dir: Path = option(default=PROJECT_WEIGHTS_DIR, help="folder of the weight files")
    backbone_weights: Path | None = redefault(DescriptorOptions, "backbone_weights", None)
    device: str = redefault(DeviceOptions, "device", "auto")
    html: Path | None = option(
        default=None, help="page to write, with thumbnails and heat maps of the attention"
    )

    def check(self) -> None:
        """Check that no option is given that has no effect in Milvus, and only one re-ranking.

        Raises:
            UserError: an option has no effect, or there are several re-rankings.
        """
        if self.milvus is not None and self.exact:
            raise UserError("exact has no effect in Milvus: leave one out")
        if len(self.rerank_by) > 1:
            raise UserError(f"rerank_by {','.join(self.rerank_by)}: a query has one re-ranking, name one")


@options_class
class QueryOptions(MatchOptions):
    """Options of the command `query`."""

    title = "query"

    images: tuple[Path, ...] = option(
        help="images to search for, indexed or not, and folders of images", positional=True, separate=True
    )
    json: Path | None = option(default=None, help="file to write the matches to")


@options_class
class DuplicatesOptions(ExcludeOptions):
    """Options of the command `duplicates`."""

    title = "duplicates"

    index: Path = redefault(QueryOptions, "index", SEARCH_INDEX)
    threshold: float = option(
        default=0.92, help="least similarity of two near duplicates", valid=Range(0, 1, exclude_least=True)
    )
    json: Path | None = option(default=None, help="file to write the groups to")


@options_class
class ServeOptions:
    """Options of the command `serve`."""

    title = "serve"

    index: Path = redefault(QueryOptions, "index", SEARCH_INDEX)
    top: int = redefault(QueryOptions, "top", 20)
    host: str = option(
        default="127.0.0.1", help="address to listen at; others can reach it unless it is local"
    )
    port: int = option(default=8080, help="port to listen at; 0 for any free port", valid=Range(0, 65535))
    weights_dir: Path = redefault(QueryOptions, "weights_dir", PROJECT_WEIGHTS_DIR)
    backbone_weights: Path | None = redefault(DescriptorOptions, "backbone_weights", None)
    device: str = redefault(DeviceOptions, "device", "auto")


@options_class
class ExportOptions:
    """Options of the command `export`."""

    title = "export"

    file: Path = option(
        help="file to write: .parquet, or .npy with a .json of paths beside it", positional=True
    )
    index: Path = option(default=SEARCH_INDEX, help="folder of the index")
    descriptors: Path | None = option(
        default=None, help="export the descriptor store of an evaluation, in this folder, instead of an index"
    )
    pooling: PoolingName | None = option(
        default=None, help="pooling whose descriptors to export, for a store with several"
    )

    def check(self) -> None:
        """Check that options of stores are not given for an index.

        Raises:
            UserError: an option has no effect.
        """
        if self.descriptors is None and self.pooling is not None:
            raise UserError("pooling has no effect without descriptors: an index has one pooling")
        if self.descriptors is not None and self.index != SEARCH_INDEX:
            raise UserError("index and descriptors are both given: export one of them")
