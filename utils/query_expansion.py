"""Average query expansion: search once more with the mean of the query and what it found first.

Chum et al., "Total recall: automatic query expansion with a generative feature model for object retrieval",
ICCV 2007, section 4.2, without spatial verification.
"""

import numpy as np


def average_query_expansion(queries: np.ndarray, database: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Mean of each query's descriptor and those of the first images of its ranking.

    Nothing is left out of the first images, neither the query's own image nor one labelled junk, which no
    search could know.

    Args:
        queries: (Q, D).
        database: (N, D).
        first: (Q, K) places in the database of the images to add.

    Returns:
        (Q, D) float32, each of Euclidean length 1, or 0 where all that it is the mean of is 0.
    """
    total = queries + database[first].sum(axis=1)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(lengths > 0, lengths, 1)).astype(np.float32)
