"""Approximate search with FAISS, an optional package, and its recall against exact search.

FAISS: Johnson, Douze and Jégou, "Billion-scale similarity search with GPUs", IEEE Transactions on Big Data
2019. Inverted file of product-quantised vectors: Jégou, Douze and Schmid, "Product quantization for nearest
neighbor search", PAMI 2011.
"""

import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from utils.descriptors.rows import Rows, row_blocks
from utils.errors import UserError
from utils.options.shared import SearchKind
from utils.search.exact import top_rows

log = logging.getLogger(__name__)

LISTS_PER_ROOT = 4
"""Inverted lists per square root of the database's size."""

PROBED_SHARE = 1 / 16
"""Share of the inverted lists that are searched per query."""

DIMENSIONS_PER_BYTE = 8
"""Dimensions per byte of a vector's code: 2048 dimensions take 256 bytes."""

CENTROIDS = 256
"""Centroids per byte of a code."""

VECTORS_PER_CENTROID = 40
"""Training vectors per inverted list and per centroid; FAISS recommends at least 39."""

RECALL_AT = (10, 100)
"""Numbers of images at which recall is measured."""


def check_search(kind: SearchKind, count: int, instead: str = "search exactly") -> None:
    """Check that a database can be searched with an index; call it before long computations.

    Args:
        kind: kind of search.
        count: number of images in the database.
        instead: what the user can do instead, for the error message.

    Raises:
        UserError: FAISS is not installed, or the database is too small for its quantisers.
    """
    if kind == "exact":
        return
    load_faiss(instead)
    if kind == "faiss-ivfpq" and count < CENTROIDS:
        raise UserError(f"faiss-ivfpq needs {CENTROIDS} images, and there are {count}: {instead}")


def build_index(kind: SearchKind, database: Rows, seed: int = 0) -> Any:  # noqa: ANN401  FAISS has no types
    """Return a FAISS index of a database for search by dot product.

    Args:
        kind: `faiss-flat` compares a query with all vectors, `faiss-ivfpq` with the codes in the nearest
            lists.
        database: (N, D).
        seed: random seed for the choice of training vectors.

    Raises:
        UserError: FAISS is not installed, or the database is too small for its quantisers.
    """
    count, width = len(database), database.shape[1]
    check_search(kind, count)
    faiss = load_faiss()
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
        training_count = VECTORS_PER_CENTROID * max(lists, CENTROIDS)
        drawn = np.sort(np.random.default_rng(seed).permutation(count)[:training_count])
        index.train(np.ascontiguousarray(database[drawn], np.float32))
    for indices, rows in row_blocks(database):
        index.add_with_ids(np.ascontiguousarray(rows, np.float32), indices.astype(np.int64))
    return index


def approximate_similarities(
    index: Any,  # noqa: ANN401
    queries: np.ndarray,
    count: int,
    retrieved: int | None = None,
) -> np.ndarray:
    """Return the similarities of queries to a database as computed by an index.

    Args:
        index: an index of `build_index`.
        queries: (Q, D).
        count: N, the size of the database.
        retrieved: largest number of images per query; None for all that the index retrieves.

    Returns:
        (Q, N) float32, minus infinity for images that the index does not retrieve.
    """
    limit = count if retrieved is None else min(retrieved, count)
    values, indices = index.search(np.ascontiguousarray(queries, np.float32), limit)
    similarities = np.full((len(queries), count), -np.inf, np.float32)
    row, column = np.nonzero(indices >= 0)  # -1 if the searched lists held fewer images
    similarities[row, indices[row, column]] = values[row, column]
    return similarities


def report_left_out(left_out: Sequence[int], count: int) -> None:
    """Log the mean number of images per query that the index did not retrieve, unless it is 0.

    Args:
        left_out: number of images per query that have similarity minus infinity.
        count: N, the size of the database.
    """
    if any(left_out):
        log.warning(
            "note: the index left out %.0f of %d images per query (mean). They rank last, in the database's "
            "order. Exact search may give other scores",
            sum(left_out) / len(left_out),
            count,
        )


def recall(indices: np.ndarray, exact_indices: np.ndarray) -> float:
    """Return the share, 0..1, of the exact result that an approximate result contains.

    Args:
        indices: (Q, K) approximate result.
        exact_indices: (Q, K) exact result.
    """
    shared = [len(np.intersect1d(row, exact)) for row, exact in zip(indices, exact_indices, strict=True)]
    return sum(shared) / max(exact_indices.size, 1)


def report_recall(index: Any, queries: np.ndarray, database: Rows) -> dict[str, float]:  # noqa: ANN401
    """Return and log the recall at each of RECALL_AT; takes as long as an exact search."""
    count = min(max(RECALL_AT), len(database))
    exact, _ = top_rows(queries, database, count)
    _, indices = index.search(np.ascontiguousarray(queries, np.float32), count)
    recalls = {f"recall@{k}": recall(indices[:, :k], exact[:, :k]) for k in RECALL_AT if k <= count}
    text = ", ".join(f"{name} {100 * value:.1f} %" for name, value in recalls.items())
    log.info("recall of the index against exact search: %s", text or "too few images to measure")
    return recalls


def load_faiss(instead: str = "search exactly") -> ModuleType:
    """Import FAISS, an optional package.

    Args:
        instead: what to do without it, for the error.

    Raises:
        UserError: FAISS is not installed.
    """
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # silences notes on which libraries it tries
    try:
        import faiss
    except ImportError as error:
        raise UserError(f"FAISS is not installed: pip install faiss-cpu, or {instead}") from error
    return faiss
