import numpy as np
import pytest

from utils.search import neighbours
from utils.search.neighbours import nearest_neighbours


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
    # Small integers give many equal rows and many equal products, all of them exact.
    database = np.random.default_rng(0).integers(-2, 3, (30, 3)).astype(np.float32)
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
    indices, similar = nearest_neighbours(np.array([[1, 0], [-1, 0], [-3, 0]], np.float32), 1)
    assert indices.tolist() == [[1], [2], [1]]
    assert similar.tolist() == [[-1], [3], [3]]


def test_equal_images_have_each_other_in_the_databases_order():
    row = np.random.default_rng(1).standard_normal(2048).astype(np.float32)
    indices, _ = nearest_neighbours(np.tile(row, (300, 1)), 2)
    assert indices[:3].tolist() == [[1, 2], [0, 2], [0, 1]]
    assert (indices[3:] == [0, 1]).all()


def test_a_single_image_has_no_neighbour():
    indices, similar = nearest_neighbours(np.ones((1, 4), np.float32), 3)
    assert indices.shape == similar.shape == (1, 0)


def test_no_more_than_a_block_of_rows_is_compared_at_a_time(monkeypatch):
    shapes = []

    def watched(queries, database):
        shapes.append((len(queries), len(database)))
        return compute_similarities(queries, database)

    compute_similarities = neighbours.compute_similarities
    monkeypatch.setattr(neighbours, "compute_similarities", watched)
    monkeypatch.setattr(neighbours, "ROWS", 4)
    nearest_neighbours(np.eye(10, dtype=np.float32), 2)
    assert shapes == [(4, 10), (4, 10), (2, 10)]
