import numpy as np
import pytest

from utils.descriptors import rows as descriptor_rows
from utils.descriptors.rows import StoredRows, row_blocks


def stored(numbers, lengths=(5, 3, 9), width=4, dtype=np.float32):
    rows = np.random.default_rng(0).standard_normal((sum(lengths), width)).astype(dtype)
    shards = np.split(rows, np.cumsum(lengths)[:-1])
    return StoredRows(shards, np.array(numbers, np.int64)), rows[numbers]


@pytest.mark.parametrize("numbers", [range(17), [16, 0, 5, 4, 8, 8, 7], [], [12]])
@pytest.mark.parametrize("block", [2, 100])
def test_blocks_hold_every_index_once_with_its_row(monkeypatch, numbers, block):
    monkeypatch.setattr(descriptor_rows, "BLOCK", block)
    database, rows = stored(list(numbers))
    assert database.shape == (len(rows), 4)
    for source in (database, rows):
        seen = []
        for indices, values in row_blocks(source):
            assert 0 < len(indices) == len(values) <= block
            np.testing.assert_array_equal(values, rows[indices])
            seen += indices.tolist()
        assert sorted(seen) == list(range(len(rows)))


def test_runs_of_a_shard_are_not_copied():
    database, _ = stored(range(17))
    assert all(values.base is not None for _, values in database.blocks())
    assert [len(indices) for indices, _ in database.blocks()] == [5, 3, 9]


def test_rows_are_read_by_index_arrays_of_any_shape_as_float32():
    database, rows = stored([3, 16, 5, 0], dtype=np.float16)
    actual = database[np.array([[0, 3], [1, 1]])]
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, rows[[[0, 3], [1, 1]]])
    np.testing.assert_array_equal(database[1:3], rows[1:3])
