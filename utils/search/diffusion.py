"""Diffusion of the similarities of queries over the nearest-neighbour graph of the database.

Iscen et al., "Efficient diffusion on region manifolds: recovering small objects with compact CNN
representations", CVPR 2017, here with one global descriptor per image instead of several regional
descriptors. Diffusion retrieves images unlike the query if a chain of similar images leads to them.

The similarity spreads over about 1 / (1 - alpha) steps. In a small database, many steps reach all images, and
images with many neighbours rank first for any query. Use a lower alpha there.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import cg

from utils.descriptors.rows import Rows
from utils.options.shared import SearchOptions
from utils.search.neighbours import Neighbours, nearest_neighbours
from utils.search.similarity import first_indices

GAMMA = 3
"""Exponent of similarities, in the graph and at the start, which suppresses low ones (Iscen et al.)."""

ALPHA: float = SearchOptions.diffusion_alpha
"""Share of the similarity that spreads on at each step (Iscen et al.)."""

QUERY_NEIGHBOURS = 10
"""Number of first images per query from which its similarity spreads; a choice of this project."""


def affinities(similarities: np.ndarray) -> np.ndarray:
    """Return the similarities to the power of GAMMA in float64, with negative similarities as 0."""
    return np.maximum(similarities.astype(np.float64), 0) ** GAMMA


def neighbour_graph(database: Rows, k: int, neighbours: Neighbours = nearest_neighbours) -> csr_matrix:
    """Return the normalised graph of mutual nearest neighbours.

    The graph is S = D^(-1/2) A D^(-1/2). A holds the affinities of images that are among the k nearest
    neighbours of each other, and 0 elsewhere. D is diagonal with the row sums of A. The row of an image
    without mutual neighbours is 0.

    Args:
        database: (N, D), N at least 1, as for `nearest_neighbours`.
        k: number of neighbours per image, at least 0, before the restriction to mutual neighbours.
        neighbours: search for the neighbours.

    Returns:
        (N, N) float64, symmetric up to rounding, with eigenvalues in -1..1. At most k values per row are
        stored, none of them 0.
    """
    indices, similarities = neighbours(database, k)
    count, width = indices.shape
    directed = csr_matrix(
        (affinities(similarities).ravel(), indices.ravel(), np.arange(count + 1) * width),
        shape=(count, count),
    )
    mutual = directed.minimum(directed.T)  # values that are not stored are 0
    degrees = np.asarray(mutual.sum(axis=1)).ravel()
    scales = diags(np.divide(1, np.sqrt(degrees), out=np.zeros(count), where=degrees > 0))
    return csr_matrix(scales @ mutual @ scales)


def diffuse(
    graph: csr_matrix, similarities: np.ndarray, neighbours: int = QUERY_NEIGHBOURS, alpha: float = ALPHA
) -> np.ndarray:
    """Return the similarities of queries after diffusion over the graph.

    Solve (I - alpha S) f = y by conjugate gradients. y holds the affinities of the query to its first images
    and 0 elsewhere. The condition number of the system is at most (1 + alpha) / (1 - alpha), which is 199 for
    ALPHA. About 100 steps therefore reach the default residual of SciPy, 1e-5 of the length of y, on any
    graph.

    Args:
        graph: (N, N), S as returned by `neighbour_graph`.
        similarities: (Q, N) similarities of the queries to the database.
        neighbours: number of first images per query from which its similarity spreads, at least 1.
        alpha: share of the similarity that spreads on at each step, 0 <= alpha < 1.

    Returns:
        (Q, N) float64, at least 0 up to the residual; exactly 0 for images that no chain of neighbours
        connects with the first images.
    """
    system = identity(len(graph.indptr) - 1, format="csr") - alpha * graph
    scores = np.empty(similarities.shape)
    starts = first_indices(similarities, neighbours)
    for row, first, score in zip(similarities, starts, scores, strict=True):
        source = np.zeros(len(row))
        source[first] = affinities(row[first])
        score[:], _ = cg(system, source, atol=0.0)
    return scores


def negative_ranks(scores: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    """Return the negative ranks of images after diffusion, for use instead of similarities.

    Images rank by falling score, images of equal score by falling similarity, and remaining ties in the
    database's order. All images that diffusion does not reach have score 0.

    Args:
        scores: (Q, N), as returned by `diffuse`. Negative scores count as 0. Scores are rounded to float32,
            so that equal images have equal scores.
        similarities: (Q, N) similarities before diffusion.

    Returns:
        (Q, N) float32, the negative of the rank from 0; exact for up to 16 million images.
    """
    order = np.lexsort((-similarities, -np.maximum(scores, 0).astype(np.float32)))
    ranks = np.empty(similarities.shape, np.float32)
    np.put_along_axis(ranks, order, np.arange(similarities.shape[1], dtype=np.float32)[np.newaxis], axis=1)
    return -ranks
