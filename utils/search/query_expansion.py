"""Query expansion: search once more with the weighted mean of the query and what it found first.

Average query expansion is that of Chum et al., "Total recall: automatic query expansion with a generative
feature model for object retrieval", ICCV 2007, section 4.2, without spatial verification. Alpha-weighted
query expansion is that of Radenović, Tolias and Chum, "Fine-tuning CNN image retrieval with no human
annotation", TPAMI 2018.
"""

import numpy as np

from utils.descriptors.rows import Rows


def expand_queries(
    queries: np.ndarray,
    database: Rows,
    first: np.ndarray,
    alpha: float = 0.0,
    retrieved: np.ndarray | None = None,
) -> np.ndarray:
    """Weighted mean of each query's descriptor and those of the first images of its ranking.

    The query counts 1, an image its similarity to the query to the power of alpha, where similarities below 0
    count as 0. With alpha 0 all count alike, those without any similarity too: average query expansion.
    Nothing is left out of the first images, neither the query's own image nor one labelled junk, which no
    search could know.

    Args:
        queries: (Q, D).
        database: (N, D), or anything that gives (Q, K, D) when it is indexed by `first`.
        first: (Q, K) places in the database of the images to add.
        alpha: at least 0; the higher, the less do dissimilar images count.
        retrieved: (Q, K) bool, false for images that an approximate search did not retrieve; None if all
            were retrieved.

    Returns:
        (Q, D) float32, each of Euclidean length 1, or 0 where all that it is the mean of is 0.
    """
    rows = database[first]
    similar = np.einsum("qd,qkd->qk", queries.astype(np.float64), rows)
    weights = np.maximum(similar, 0) ** alpha  # 0 to the power of 0 is 1
    if retrieved is not None:
        weights *= retrieved
    # Weights of 1 change no bit of the sum, as long as they have the type of what they weigh.
    total = queries + (weights.astype(rows.dtype)[:, :, np.newaxis] * rows).sum(axis=1)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(lengths > 0, lengths, 1)).astype(np.float32)
