import logging
import sys

import numpy as np
import pytest

from utils.descriptors import rows as descriptor_rows
from utils.descriptors.rows import StoredRows
from utils.errors import UserError
from utils.search.approximate import (
    approximate_similarities,
    build_index,
    check_search,
    recall,
    report_left_out,
    report_recall,
)


def directions(count, width=32, seed=0, groups=None):
    """Return random vectors of length 1, close to one of `groups` directions if given."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, width))
    if groups:
        vectors = 0.3 * vectors + 3 * rng.standard_normal((groups, width))[np.arange(count) % groups]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def in_shards(rows, dtype=np.float32):
    """Return rows as a database stored in shards, in another order."""
    order = np.random.default_rng(1).permutation(len(rows))
    shards = np.array_split(rows[order].astype(dtype), 3)
    return StoredRows(shards, np.argsort(order))


def test_recall_is_the_share_of_the_exact_result_in_the_approximate_one():
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(exact[:, ::-1], exact) == 1
    assert recall(np.array([[1, 9, 3, 0], [4, 3, 2, 1]]), exact) == 2 / 8
    assert recall(np.array([[-1, -1, -1, 4], [8, -1, -1, -1]]), exact) == 2 / 8  # -1 stands for no result


@pytest.mark.parametrize("stored", [False, True])
def test_a_flat_index_finds_the_dot_products(monkeypatch, stored):
    pytest.importorskip("faiss")
    monkeypatch.setattr(descriptor_rows, "BLOCK", 64)
    rows, queries = directions(300), directions(5, seed=2)
    index = build_index("faiss-flat", in_shards(rows) if stored else rows)
    expected = queries.astype(np.float64) @ rows.T
    np.testing.assert_allclose(approximate_similarities(index, queries, 300), expected, atol=1e-6)
    first = approximate_similarities(index, queries, 300, retrieved=7)
    for row, full in zip(first, expected, strict=True):
        retrieved = np.flatnonzero(np.isfinite(row))
        assert sorted(retrieved) == sorted(np.argsort(-full)[:7])
        assert (row[np.isinf(row)] < 0).all()


@pytest.mark.parametrize("stored", [False, True])
def test_an_inverted_file_returns_the_indices_of_the_images(stored):
    pytest.importorskip("faiss")
    rows = directions(600, groups=20)
    index = build_index("faiss-ivfpq", in_shards(rows, np.float16) if stored else rows)
    similar = approximate_similarities(index, rows[:100], 600, retrieved=30)
    # Every 20th image of the database has the same direction, 30 images in all. Most of them come first.
    assert similar.shape == (100, 600)
    same_group = np.arange(600) % 20 == np.arange(100)[:, None] % 20
    retrieved = np.isfinite(similar)
    assert (retrieved & same_group).sum() / same_group.sum() > 0.9
    exact = rows[:100] @ rows.T
    # The codes have one byte per 8 dimensions.
    np.testing.assert_allclose(similar[retrieved], exact[retrieved], atol=0.15)


def test_images_outside_the_searched_lists_have_similarity_minus_infinity():
    pytest.importorskip("faiss")
    rows = directions(600, groups=20)
    index = build_index("faiss-ivfpq", rows)
    index.nprobe = 1
    similar = approximate_similarities(index, rows[:10], 600)
    counts = np.isfinite(similar).sum(axis=1)
    assert ((counts > 0) & (counts < 600)).all()
    assert np.isneginf(similar[~np.isfinite(similar)]).all()
    lists = {index.invlists.list_size(number) for number in range(index.nlist)}
    assert set(counts) <= lists


def test_the_seed_selects_the_training_vectors(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("utils.search.approximate.VECTORS_PER_CENTROID", 1)
    rows = directions(700)
    same, again, other = (
        approximate_similarities(build_index("faiss-ivfpq", rows, seed), rows[:20], 700) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


def test_reported_recall_agrees_with_a_sort(caplog):
    faiss = pytest.importorskip("faiss")
    caplog.set_level(logging.INFO)
    rows, queries = directions(250), directions(6, seed=2)
    exact = np.argsort(-(queries.astype(np.float64) @ rows.T), axis=1)
    reported = report_recall(build_index("faiss-flat", rows), queries, in_shards(rows))
    assert reported == {"recall@10": 1.0, "recall@100": 1.0}
    # An index of the first half finds only the part of the exact result in that half.
    half = faiss.IndexFlatIP(32)
    half.add(rows[:125])
    among_first = {k: float(np.mean(exact[:, :k] < 125)) for k in (10, 100)}
    reported = report_recall(half, queries, rows)
    # It also returns other images, but none of the exact result.
    assert reported == pytest.approx({f"recall@{k}": share for k, share in among_first.items()})
    assert f"recall@10 {100 * among_first[10]:.1f} %" in caplog.text
    assert report_recall(build_index("faiss-flat", rows[:9]), queries, rows[:9]) == {}
    assert "too few images to measure" in caplog.text


def test_a_database_of_fewer_images_than_centroids_is_refused():
    pytest.importorskip("faiss")
    for refuse in (
        lambda: build_index("faiss-ivfpq", directions(255)),
        lambda: check_search("faiss-ivfpq", 255),
    ):
        with pytest.raises(UserError, match="faiss-ivfpq needs 256 images, and there are 255"):
            refuse()
    check_search("faiss-ivfpq", 256)
    check_search("faiss-flat", 1)
    assert approximate_similarities(
        build_index("faiss-ivfpq", directions(256)), directions(2), 256
    ).shape == (2, 256)


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    check_search("exact", 1)
    for refuse in (
        lambda: build_index("faiss-flat", directions(9)),
        lambda: check_search("faiss-ivfpq", 999),
    ):
        with pytest.raises(UserError, match="FAISS is not installed: pip install faiss-cpu"):
            refuse()


def test_every_image_of_a_large_database_is_ranked_as_by_exact_search():
    pytest.importorskip("faiss")
    rows, queries = directions(5063), directions(3, seed=2)
    similar = approximate_similarities(build_index("faiss-flat", rows), queries, 5063)
    expected = queries.astype(np.float64) @ rows.T
    np.testing.assert_allclose(similar, expected, atol=1e-6)
    # Ranks agree where similarities differ by more than the rounding of float32.
    for row, exact in zip(similar, expected, strict=True):
        assert (np.diff(exact[np.argsort(-row, kind="stable")]) < 1e-6).all()
    assert np.isfinite(similar).all()


def test_a_note_counts_the_images_that_an_index_leaves_out(caplog):
    report_left_out([0, 0], 10)
    assert caplog.text == ""
    report_left_out([4, 2], 10)
    assert "note: the index left out 3 of 10 images per query" in caplog.text
