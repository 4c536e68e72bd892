import numpy as np
import pytest

from utils.descriptors.rows import BLOCK
from utils.search.similarity import compute_similarities, first_indices, rank


def test_ranks_by_falling_dot_product():
    database = np.array([[0.1, 0], [0.9, 0], [-1, 5], [0.5, 0]], np.float32)
    assert rank(compute_similarities(np.array([[1, 0], [0, 1]], np.float32), database)).tolist() == [
        [1, 3, 0, 2],
        [2, 0, 1, 3],
    ]


def test_equal_images_rank_in_the_databases_order():
    rng = np.random.default_rng(0)
    row = rng.standard_normal(2048).astype(np.float32)
    database = np.tile(row, (BLOCK + 37, 1))
    queries = rng.standard_normal((3, 2048)).astype(np.float32)
    assert (rank(compute_similarities(queries, database)) == np.arange(len(database))).all()


def test_equal_images_stay_in_order_among_others():
    # Five rows repeated: the last rows of a block, and the last block, are computed by another part of the
    # matrix product than the first rows, which sums in another order.
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((5, 64)).astype(np.float32)
    queries = rng.standard_normal((3, 64)).astype(np.float32)
    kinds = np.arange(2 * BLOCK + 37) % len(rows)
    database = rows[kinds]
    similar = compute_similarities(queries, database)
    for kind in range(len(rows)):
        assert (similar[:, kinds == kind] == similar[:, [kind]]).all()
    for query, ranking in zip(queries, rank(compute_similarities(queries, database)), strict=True):
        by_similarity = np.argsort(-rows.astype(np.float64) @ query)
        indices = [np.flatnonzero(kinds == kind) for kind in by_similarity]
        assert (ranking == np.concatenate(indices)).all()


def test_similarities_are_dot_products_in_every_block():
    rng = np.random.default_rng(1)
    queries, database = rng.standard_normal((2, 4)), rng.standard_normal((BLOCK + 5, 4))
    np.testing.assert_allclose(
        compute_similarities(queries, database), np.einsum("qd,nd->qn", queries, database), rtol=1e-5
    )


@pytest.mark.parametrize("count", [1, 3, 10, 50, 60])
def test_first_indices_are_the_start_of_the_full_ranking(count):
    # With 7 different similarities of 50 images, there are ties at every count.
    similar = np.random.default_rng(3).integers(0, 7, (20, 50)).astype(np.float32)
    by_hand = [sorted(range(50), key=lambda index, row=row: (-row[index], index)) for row in similar]
    assert first_indices(similar, count).tolist() == [row[:count] for row in by_hand]
