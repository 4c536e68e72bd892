"""Approximate search with FAISS, a package of its own, and how much of the exact result it finds.

Johnson, Douze and Jégou, "Billion-scale similarity search with GPUs", IEEE Transactions on Big Data 2019. The
inverted file of product-quantised vectors is that of Jégou, Douze and Schmid, "Product quantization for
nearest neighbor search", PAMI 2011.
"""

import logging
from types import ModuleType
from typing import Any

import numpy as np

from utils.descriptors.rows import Rows, row_blocks
from utils.errors import UserError
from utils.options.shared import SearchKind
from utils.search.exact import exact_search

log = logging.getLogger(__name__)

LISTS_PER_ROOT = 4
"""Inverted lists for each square root of the database's size."""

PROBED_SHARE = 1 / 16
"""Share of the lists that a query looks into."""

DIMENSIONS_PER_BYTE = 8
"""Dimensions of a vector that one byte of its code stands for: 2048 dimensions are 256 bytes."""

CENTROIDS = 256
VECTORS_PER_CENTROID = 40
"""Vectors a list, and a centroid of a byte, that the quantisers are learned from; FAISS wants 39."""

RECALL_AT = (10, 100)


def check_search(kind: SearchKind, count: int) -> None:
    """Checks, before hours of work, that a database can be searched in a way.

    Args:
        kind: the way.
        count: images of the database.

    Raises:
        UserError: FAISS is not installed, or the database is too small for its quantisers.
    """
    if kind == "exact":
        return
    _faiss()
    if kind == "faiss-ivfpq" and count < CENTROIDS:
        raise UserError(f"faiss-ivfpq needs {CENTROIDS} images, and there are {count}: search exactly")


def build_index(kind: SearchKind, database: Rows, seed: int = 0) -> Any:  # noqa: ANN401  FAISS has no types
    """An index of a database for search by dot product.

    Args:
        kind: `faiss-flat` compares with every vector, `faiss-ivfpq` with the codes in the lists near a query.
        database: (N, D).
        seed: of the vectors that the quantisers are learned from.

    Raises:
        UserError: FAISS is not installed, or the database is too small for its quantisers.
    """
    count, width = len(database), database.shape[1]
    check_search(kind, count)
    faiss = _faiss()
    if kind == "faiss-flat":
        index = faiss.IndexIDMap(faiss.IndexFlatIP(width))
    else:
        lists = max(min(round(LISTS_PER_ROOT * count**0.5), count // VECTORS_PER_CENTROID), 1)
        parts = max(width // DIMENSIONS_PER_BYTE, 1)
        while width % parts:
            parts -= 1
        coarse = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFPQ(coarse, width, lists, parts, 8, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(round(PROBED_SHARE * lists), 1)
        trained_on = VECTORS_PER_CENTROID * max(lists, CENTROIDS)
        drawn = np.sort(np.random.default_rng(seed).permutation(count)[:trained_on])
        index.train(np.ascontiguousarray(database[drawn], np.float32))
    for places, rows in row_blocks(database):
        index.add_with_ids(np.ascontiguousarray(rows, np.float32), places.astype(np.int64))
    return index


def approximate_similarities(
    index: Any,  # noqa: ANN401
    queries: np.ndarray,
    count: int,
    retrieved: int | None = None,
) -> np.ndarray:
    """Return the similarities that an index finds, as those to all images of the database.

    Args:
        index: an index of `build_index`.
        queries: (Q, D).
        count: N, the database's size.
        retrieved: largest number of images per query; all that the index finds if None.

    Returns:
        (Q, N) float32, minus infinity for the images that were not found.
    """
    wanted = count if retrieved is None else min(retrieved, count)
    found, places = index.search(np.ascontiguousarray(queries, np.float32), wanted)
    similar = np.full((len(queries), count), -np.inf, np.float32)
    row, column = np.nonzero(places >= 0)  # -1 where the lists held fewer
    similar[row, places[row, column]] = found[row, column]
    return similar


def report_left_out(similar: np.ndarray) -> None:
    """Log which part of the database an index left out of the rankings, if any.

    Args:
        similar: (Q, N) of `approximate_similarities`.
    """
    left_out = np.isneginf(similar).sum(axis=1)
    if left_out.any():
        log.warning(
            "note: of %d images the index left out %.0f per query (mean), which rank last in the database's "
            "order: exact search may score otherwise",
            similar.shape[1],
            left_out.mean(),
        )


def recall(places: np.ndarray, exact_places: np.ndarray) -> float:
    """The part, 0..1, of the exact result, (Q, K) places, that is among the first K found, (Q, K)."""
    shared = [len(np.intersect1d(found, exact)) for found, exact in zip(places, exact_places, strict=True)]
    return sum(shared) / max(exact_places.size, 1)


def report_recall(index: Any, queries: np.ndarray, database: Rows) -> dict[str, float]:  # noqa: ANN401
    """Recall at each of RECALL_AT against exact search, which takes as long as that does; also logged."""
    count = min(max(RECALL_AT), len(database))
    exact, _ = exact_search(queries, database, count)
    _, places = index.search(np.ascontiguousarray(queries, np.float32), count)
    recalls = {f"recall@{k}": recall(places[:, :k], exact[:, :k]) for k in RECALL_AT if k <= count}
    told = ", ".join(f"{name} {100 * value:.1f} %" for name, value in recalls.items())
    log.info("of what exact search finds first, the index finds: %s", told or "too few images to say")
    return recalls


def _faiss() -> ModuleType:
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells at length what it tries to load
    try:
        import faiss
    except ImportError as error:
        raise UserError("FAISS is not installed: pip install faiss-cpu, or search exactly") from error
    return faiss
