"""Re-ranking of the first images of queries, and figures of what it matched."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from models.poolings.regions import rmac_regions
from models.poolings.rmac import RMAC
from models.retrieval_network import RetrievalNetwork
from utils.figures.match_figure import draw_boxes, draw_points
from utils.figures.result_page import Evidence
from utils.image_index.image_index import ImageIndex
from utils.images import local_features
from utils.images.batches import Loading
from utils.images.loading import InputImage, load_pixels
from utils.options.shared import RerankOptions
from utils.search.reranking.geometry import Geometry
from utils.search.reranking.regions import RegionReranking
from utils.search.reranking.registry import RerankInputs, build_reranker
from utils.search.reranking.reranker import FirstImages, Reranker, order_by_score

KEPT_IMAGES = 1000
"""Number of images whose features or regions are kept for further queries, up to 0.14 GB."""

LEGENDS = {
    "geometry": "Dots and lines are points of the query, above or on the left, and of a result that one "
    "homography maps to each other.",
    "regions": "The boxes are the region of the query, above or on the left, and the region of a result that "
    "add most to the re-ranking.",
}
"""Description of the figures, by re-ranking."""


class QueryReranking:
    """Re-ranking of the first images of queries by the method that the options name.

    Args:
        options: options of the re-ranking.
        queries: the queries, with their boxes.
        network: returns the network of the index, with one pooling.
        longer_side: S of the index, in pixels.
    """

    def __init__(
        self,
        options: RerankOptions,
        queries: Sequence[InputImage],
        network: Callable[[], RetrievalNetwork],
        longer_side: int,
    ) -> None:
        self._options = options
        self._queries = queries
        self._network = network
        self._longer_side = longer_side
        self._numbers: dict[Path, int] = {}
        self._images: list[InputImage] = []
        """The images that were compared, by their number."""
        self._reranked: dict[int, set[Path]] = {}
        """The images that were re-ranked, by the index of their query."""

    @cached_property
    def _reranker(self) -> Reranker:
        loading = Loading(self._longer_side, batch_size=1, workers=0)
        inputs = RerankInputs(self._network, self._queries, self._images, loading)
        return build_reranker(self._options, inputs)

    @property
    def legend(self) -> str | None:
        """Description of the figures; None if the method has none."""
        return LEGENDS.get(self._options.rerank_by[0])

    def order(
        self,
        query: int,
        descriptor: np.ndarray,
        part: ImageIndex,
        pairs: Sequence[tuple[int, float]],
        query_row: int | None,
    ) -> list[tuple[int, float]]:
        """Return the nearest images of a query in their new order, each with its similarity.

        Args:
            query: index of the query.
            descriptor: (D,) float32, of the query.
            part: index of the images.
            pairs: index in the part and similarity of each image, by falling similarity.
            query_row: index of the query image in the part, which remains the first; None if it has none.
        """
        self._forget_many()
        itself = [pair for pair in pairs if pair[0] == query_row]
        others = [pair for pair in pairs if pair[0] != query_row]
        first = others[: self._options.rerank]
        if not first:
            return itself
        rows = np.array([row for row, _ in first])
        paths = [part.path(row) for row in rows]
        self._reranked[query] = set(paths)
        numbers = np.array([self._number(path) for path in paths])
        scores = self._reranker(FirstImages(query, descriptor, numbers, part.rows[rows]))
        return itself + [first[index] for index in order_by_score(scores)] + others[len(first) :]

    def evidence(self, query: int, path: Path) -> Evidence | None:
        """Return a figure of what the re-ranking matched in an image; None if there is nothing to show.

        Raises:
            UserError: an image has become unreadable.
        """
        if path not in self._reranked.get(query, ()):
            return None
        self._forget_many()
        if isinstance(self._reranker, Geometry):
            return self._points(query, path, self._reranker)
        if isinstance(self._reranker, RegionReranking):
            return self._boxes(query, path, self._reranker)
        return None

    def _points(self, query: int, path: Path, geometry: Geometry) -> Evidence | None:
        points = geometry.matched_points(query, self._number(path))
        if points is None:
            return None
        pixels = self._pixels(query, path, local_features.LONGER_SIDE)
        return Evidence(draw_points(*pixels, *points), f"{len(points[0])} matched points")

    def _boxes(self, query: int, path: Path, reranking: RegionReranking) -> Evidence | None:
        pair = reranking.best_pair(query, self._number(path))
        if pair is None:
            return None
        pixels = self._pixels(query, path, self._longer_side)
        regions = (pair.query_region, pair.image_region)
        boxes = [self._box(image, region) for image, region in zip(pixels, regions, strict=True)]
        return Evidence(draw_boxes(*pixels, *boxes), f"similarity of the regions {pair.similarity:.4f}")

    def _box(self, pixels: np.ndarray, region: int) -> np.ndarray:
        """Return left, top, right and bottom of a region of a resized image, (4,)."""
        height, width, _ = pixels.shape
        pooling = self._network().poolings[0]
        if not isinstance(pooling, RMAC):  # of the entire map
            return np.array([0, 0, width, height])
        x, y, region_width, region_height = rmac_regions(height, width, pooling.levels)[region].tolist()
        return np.array([x, y, x + region_width, y + region_height])

    def _pixels(self, query: int, path: Path, longer_side: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the query and an image, resized and cropped to their boxes, (H, W, 3) uint8, RGB."""
        images = (self._queries[query], InputImage(path))
        first, second = (load_pixels(image, longer_side).numpy() for image in images)
        return first, second

    def _number(self, path: Path) -> int:
        if path not in self._numbers:
            self._numbers[path] = len(self._images)
            self._images.append(InputImage(path))
        return self._numbers[path]

    def _forget_many(self) -> None:
        """Drop the features or regions of all images if there are many."""
        if len(self._images) > KEPT_IMAGES:
            self._numbers.clear()
            self._images.clear()
            del self._reranker
