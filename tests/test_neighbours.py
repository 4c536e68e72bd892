import numpy as np
import pytest
from helpers import unit

from utils.search import neighbours
from utils.search.exact import top_rows
from utils.search.neighbours import approximate_neighbours, nearest_neighbours


def naive(database, k):
    """Return the indices of the k nearest rows, by sorting tuples for each row."""
    products = [[np.float32(np.dot(a.astype(np.float64), b)) for b in database] for a in database]
    return [
        sorted((index for index in range(len(database)) if index != image), key=lambda p, r=row: (-r[p], p))[
            :k
        ]
        for image, row in enumerate(products)
    ]


@pytest.mark.parametrize("rows", [1, 7, 256])
@pytest.mark.parametrize("k", [0, 1, 5, 29, 30, 100])
def test_neighbours_equal_those_of_a_naive_search_for_every_block_size(monkeypatch, rows, k):
    monkeypatch.setattr(neighbours, "ROWS", rows)
    # Small multiples of 1/4 give many equal rows and many equal products, all of them exact.
    database = np.random.default_rng(0).integers(-2, 3, (30, 3)).astype(np.float32) / 4
    indices, similar = nearest_neighbours(database, k)
    assert indices.tolist() == naive(database, k)
    assert (similar == np.einsum("nd,nkd->nk", database, database[indices])).all()
    assert (indices.shape, indices.dtype, similar.dtype) == ((30, min(k, 29)), np.int64, np.float32)


def test_an_image_is_no_neighbour_of_itself_but_of_an_equal_image():
    database = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    indices, similar = nearest_neighbours(database, 1)
    assert indices.tolist() == [[2], [0], [0]]
    assert similar.tolist() == [[1], [0], [1]]


def test_an_image_with_negative_similarities_has_the_most_similar_neighbour():
    indices, similar = nearest_neighbours(np.array([[0.25, 0], [-0.25, 0], [-0.75, 0]], np.float32), 1)
    assert indices.tolist() == [[1], [2], [1]]
    assert similar.tolist() == [[-1 / 16], [3 / 16], [3 / 16]]


def test_equal_images_have_each_other_in_the_databases_order():
    row = unit(np.random.default_rng(1).standard_normal(2048)).astype(np.float32)
    indices, _ = nearest_neighbours(np.tile(row, (300, 1)), 2)
    assert indices[:3].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert (indices[3:] == [0, 1]).all()


def test_a_single_image_has_no_neighbour():
    indices, similar = nearest_neighbours(np.full((1, 4), 0.5, np.float32), 3)
    assert indices.shape == similar.shape == (1, 0)


def test_no_more_than_a_block_of_rows_is_compared_at_a_time(monkeypatch):
    shapes = []

    def watched(queries, database, count):
        shapes.append((len(queries), len(database), count))
        return top_rows(queries, database, count)

    monkeypatch.setattr(neighbours, "top_rows", watched)
    monkeypatch.setattr(neighbours, "ROWS", 4)
    nearest_neighbours(np.eye(10, dtype=np.float32), 2)
    assert shapes == [(4, 10, 3), (4, 10, 3), (2, 10, 3)]


def grouped(count, groups, width=32):
    """Return unit vectors close to one of some directions."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((groups, width))
    return unit(centres[np.arange(count) % groups] + 0.2 * rng.standard_normal((count, width))).astype(
        np.float32
    )


def test_approximate_neighbours_are_mostly_the_exact_ones_with_exact_similarities(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(neighbours, "ROWS", 300)
    database = grouped(1000, 50)  # 20 images per direction
    indices, similar = approximate_neighbours(database, 6)
    exact, _ = nearest_neighbours(database, 6)
    np.testing.assert_allclose(similar, np.einsum("nd,nkd->nk", database, database[indices]), rtol=1e-6)
    assert (indices != np.arange(1000)[:, None]).all()
    assert (np.diff(similar, axis=1) <= 0).all()
    shared = sum(len(np.intersect1d(row, other)) for row, other in zip(indices, exact, strict=True))
    assert shared / exact.size > 0.9


def test_images_for_which_an_index_finds_too_few_rows_are_searched_exactly(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(neighbours, "PROBED_LISTS", 1)
    monkeypatch.setattr("utils.search.approximate.VECTORS_PER_CENTROID", 8)  # 67 lists
    database = grouped(540, 180)  # 3 images per direction
    indices, similar = approximate_neighbours(database, 300)
    exact, exact_similar = nearest_neighbours(database, 300)
    np.testing.assert_array_equal(indices, exact)
    np.testing.assert_array_equal(similar, exact_similar)
