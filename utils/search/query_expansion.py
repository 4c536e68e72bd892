"""Query expansion: search again with the weighted mean of the query and its first images.

Average query expansion: Chum et al., "Total recall: automatic query expansion with a generative feature model
for object retrieval", ICCV 2007, section 4.2, here without spatial verification. Alpha-weighted query
expansion: Radenović, Tolias and Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2018.
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
    """Return the weighted mean of each query's descriptor and the descriptors of its first images.

    The weight of the query is 1. The weight of an image is its similarity to the query to the power of alpha,
    with negative similarities as 0. With alpha 0, all weights are 1, which is average query expansion. The
    first images may include the query's own image and junk images, because a search does not know the labels.

    Args:
        queries: (Q, D).
        database: (N, D), or any object that returns (Q, K, D) when indexed by `first`.
        first: (Q, K) indices in the database of the images to add.
        alpha: exponent, at least 0; the higher, the smaller the weight of dissimilar images.
        retrieved: (Q, K) bool, false for images that an approximate search did not retrieve; None if all
            were retrieved.

    Returns:
        (Q, D) float32, each row of Euclidean length 1, or 0 if the mean is 0.
    """
    rows = database[first]
    similarities = np.einsum("qd,qkd->qk", queries.astype(np.float64), rows)
    weights = np.maximum(similarities, 0) ** alpha  # 0 ** 0 is 1
    if retrieved is not None:
        weights *= retrieved
    # Cast the weights to the type of the rows, so that weights of 1 leave the sum bitwise unchanged.
    total = queries + (weights.astype(rows.dtype)[:, :, np.newaxis] * rows).sum(axis=1)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(lengths > 0, lengths, 1)).astype(np.float32)
