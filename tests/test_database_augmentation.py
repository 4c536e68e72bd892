import numpy as np
import pytest
from helpers import unit

from utils.search import database_augmentation
from utils.search.database_augmentation import augment_database


@pytest.mark.parametrize("rows", [1, 7, 256])
@pytest.mark.parametrize("k", [1, 4, 19, 50])
def test_augmentation_equals_a_naive_loop_for_every_block_size(monkeypatch, rows, k):
    monkeypatch.setattr(database_augmentation, "ROWS", rows)
    database = unit(np.random.default_rng(0).standard_normal((20, 6))).astype(np.float32)
    augmented = augment_database(database, k)
    for image, vector in enumerate(database.astype(np.float64)):
        others = [index for index in range(20) if index != image]
        others.sort(key=lambda index, vector=vector: -float(vector @ database[index]))
        total = vector.copy()
        for rank, index in enumerate(others[:k], start=1):
            total += (k + 1 - rank) / (k + 1) * database[index]
        np.testing.assert_allclose(augmented[image], unit(total), rtol=0, atol=1e-6)
    assert (augmented.dtype, augmented.shape) == (np.float32, (20, 6))


def test_weights_fall_by_a_third_where_two_neighbours_are_added():
    database = np.array([[1, 0, 0], [0.5, 1, 0], [0.25, 0, 1]], np.float32) / 2
    # Twice the sum is (1, 0, 0) + 2/3 (0.5, 1, 0) + 1/3 (0.25, 0, 1) = (17, 8, 4) / 12
    np.testing.assert_allclose(augment_database(database, 2)[0], np.array([17, 8, 4]) / 369**0.5, rtol=1e-6)


def test_an_equal_image_is_a_neighbour_and_equal_images_stay_equal():
    database = np.array([[0.6, 0.8], [0, 0.2], [0.6, 0.8]], np.float32)
    augmented = augment_database(database, 1)
    # The equal images add each other and keep their direction; (0, 0.2) adds half of (0.6, 0.8): (0.3, 0.6).
    np.testing.assert_allclose(augmented, [[0.6, 0.8], [0.2**0.5, 0.8**0.5], [0.6, 0.8]], rtol=1e-6)
    assert (augmented[0] == augmented[2]).all()


def test_neighbours_are_added_as_they_were_before():
    # The neighbour of the second image is the first, whose neighbour is the third. If the augmented first
    # image were added, the second would have a third component.
    database = np.array([[1, 0, 0], [0.6, 0.8, 0], [0.9, 0, 0.4]], np.float32)
    np.testing.assert_allclose(augment_database(database, 1)[1], unit(np.array([1.1, 0.8, 0])), rtol=1e-6)


def test_without_neighbours_descriptors_are_only_normalised():
    np.testing.assert_allclose(
        augment_database(np.array([[0.3, 0.4], [0, 0.2]]), 0), [[0.6, 0.8], [0, 1]], rtol=1e-6
    )
    np.testing.assert_allclose(
        augment_database(np.array([[0.3, 0.4]], np.float32), 5), [[0.6, 0.8]], rtol=1e-6
    )


def test_images_that_are_all_equal_stay_as_they_are():
    row = unit(np.arange(1.0, 9.0)).astype(np.float32)
    np.testing.assert_allclose(augment_database(np.tile(row, (6, 1)), 3), np.tile(row, (6, 1)), rtol=1e-6)


def test_vectors_of_zeros_among_themselves_stay_zero():
    assert augment_database(np.zeros((3, 2), np.float32), 2).tolist() == [[0, 0]] * 3
