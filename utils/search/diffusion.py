"""Diffusion: a query's similarities spread over the graph of the database's nearest neighbours.

Iscen et al., "Efficient diffusion on region manifolds: recovering small objects with compact CNN
representations", CVPR 2017, with one global descriptor an image instead of several regional ones. An image
unlike the query is found if a chain of images, each similar to the next, leads to it.

With alpha near 1 the similarity spreads over some 1 / (1 - alpha) steps. Where so many lead all over a small
database, images with many neighbours come first, whatever the query: it wants a lower alpha.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import cg

from utils.descriptors.rows import Rows
from utils.options.shared import SearchOptions
from utils.search.neighbours import nearest_neighbours
from utils.search.similarity import first_indices

GAMMA = 3
"""Power of a similarity, in the graph and where a query starts: weak ones hardly count (Iscen et al.)."""

ALPHA: float = SearchOptions.diffusion_alpha
"""Share of the similarity that goes on to the next images at each step (Iscen et al.)."""

QUERY_NEIGHBOURS = 10
"""First images of a query's ranking from which its similarity spreads: a choice made here."""


def affinities(similar: np.ndarray) -> np.ndarray:
    """Similarities to the power of GAMMA, those below 0 as 0, in float64."""
    return np.maximum(similar.astype(np.float64), 0) ** GAMMA


def neighbour_graph(database: Rows, k: int) -> csr_matrix:
    """Normalised graph of the images that are among each other's k nearest neighbours.

    S = D^(-1/2) A D^(-1/2), where A holds the affinities of mutual neighbours, 0 for all others and on the
    diagonal, and D the sums of its rows. An image without mutual neighbours has a row of zeros.

    Args:
        database: (N, D), N at least 1, as `nearest_neighbours` takes it.
        k: neighbours of each image, at least 0, of which the mutual ones remain.

    Returns:
        (N, N) float64, symmetric up to rounding, its eigenvalues -1..1; at most k entries a row are stored,
        no zeros among them.
    """
    places, similar = nearest_neighbours(database, k)
    count, width = places.shape
    directed = csr_matrix(
        (affinities(similar).ravel(), places.ravel(), np.arange(count + 1) * width), shape=(count, count)
    )
    mutual = directed.minimum(directed.T)  # what is not stored is 0; of the result no 0 is stored
    degrees = np.asarray(mutual.sum(axis=1)).ravel()
    scales = diags(np.divide(1, np.sqrt(degrees), out=np.zeros(count), where=degrees > 0))
    return csr_matrix(scales @ mutual @ scales)


def diffuse(
    graph: csr_matrix, similar: np.ndarray, neighbours: int = QUERY_NEIGHBOURS, alpha: float = ALPHA
) -> np.ndarray:
    """What each query's similarities come to when they have spread over the graph.

    Solves (I - alpha S) f = y by conjugate gradients, y being the affinities of the query to its first images
    and 0 elsewhere. The system's condition number is at most (1 + alpha) / (1 - alpha), 199 for ALPHA, so a
    hundred steps or so reach scipy's default residual, 1e-5 of the length of y, on any graph.

    Args:
        graph: (N, N), S of `neighbour_graph`.
        similar: (Q, N) similarities of the queries to the database.
        neighbours: first images of each query's ranking from which it spreads, at least 1.
        alpha: share that goes on at each step, 0 to less than 1.

    Returns:
        (Q, N) float64, at least 0 up to the residual; exactly 0 for images that no chain of neighbours joins
        to those first images.
    """
    system = identity(len(graph.indptr) - 1, format="csr") - alpha * graph
    scores = np.empty(similar.shape)
    for row, first, score in zip(similar, first_indices(similar, neighbours), scores, strict=True):
        start = np.zeros(len(row))
        start[first] = affinities(row[first])
        score[:], _ = cg(system, start, atol=0.0)
    return scores


def negative_ranks(scores: np.ndarray, similar: np.ndarray) -> np.ndarray:
    """Numbers by which images rank as after diffusion, in the place of similarities.

    Images rank by falling score; where it is equal, as it is 0 for all that diffusion does not reach, by
    falling similarity, and where that is equal in the database's order.

    Args:
        scores: (Q, N) of `diffuse`. Those below 0 count as 0, and all are rounded to float32, which hides
            that equal images' sums differ in their last bits.
        similar: (Q, N) similarities before diffusion.

    Returns:
        (Q, N) float32, minus each image's rank from 0; exact up to 16 million images.
    """
    order = np.lexsort((-similar, -np.maximum(scores, 0).astype(np.float32)))
    ranks = np.empty(similar.shape, np.float32)
    np.put_along_axis(ranks, order, np.arange(similar.shape[1], dtype=np.float32)[np.newaxis], axis=1)
    return -ranks
