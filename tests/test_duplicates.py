"""Groups of near duplicates, compared with a search through the matrix of all similarities."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_image
from helpers import FAST_INDEX, unit
from PIL import Image

import Search_Images
from utils.descriptors.rows import StoredRows
from utils.search import duplicates
from utils.search.duplicates import duplicate_groups


def stored(rows, *splits):
    """Return rows as stored in shards that end at some rows, in another order than in the index."""
    order = np.random.default_rng(1).permutation(len(rows))
    return StoredRows(np.split(rows[order], splits), np.argsort(order))


def expected_groups(rows, threshold):
    """Return the groups and the greatest similarity of each image, by the complete matrix."""
    similar = np.minimum((rows.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32), 1)
    np.fill_diagonal(similar, -np.inf)
    groups, seen = [], set()
    for start in range(len(rows)):
        reached, pending = {start}, [start]
        while pending:
            for other in np.flatnonzero(similar[pending.pop()] >= threshold).tolist():
                if other not in reached:
                    reached.add(other)
                    pending.append(other)
        if start not in seen and len(reached) > 1:
            groups.append(sorted(reached))
        seen |= reached
    best = similar.max(axis=1)
    return groups, np.where(best >= threshold, best, -np.inf)


def clustered(count, width=8, spread=0.15, seed=0):
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(count // 3, width)))
    return unit(centres[rng.integers(0, len(centres), count)] + spread * rng.normal(size=(count, width)))


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("threshold", [0.97, 0.9, 0.5])
@pytest.mark.parametrize("most_pairs", [2**22, 5])
def test_groups_are_the_components_of_the_matrix(kind, threshold, most_pairs, monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS", 17)
    monkeypatch.setattr(duplicates, "MOST_PAIRS", most_pairs)
    rows = clustered(100).astype(kind)
    groups, similarities = duplicate_groups(stored(rows, 31, 62), threshold)
    expected, best = expected_groups(rows, threshold)
    assert len(expected) > 1 or threshold == 0.5
    assert [group.tolist() for group in groups] == expected
    np.testing.assert_allclose(similarities, best, atol=1e-6)


def test_a_chain_is_one_group():
    angles = np.deg2rad([0, 20, 40, 60, 120, 180, 190])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups, similarities = duplicate_groups(StoredRows([rows], np.arange(7)), np.cos(np.deg2rad(21)))
    assert [group.tolist() for group in groups] == [[0, 1, 2, 3], [5, 6]]
    cosines = np.cos(np.deg2rad([20, 20, 20, 20, 0, 10, 10])).astype(np.float32)
    cosines[4] = -np.inf
    np.testing.assert_allclose(similarities, cosines, atol=1e-6)


def test_a_pair_at_the_threshold_belongs_together_and_one_below_does_not():
    rows = np.float32([[1, 0], [0.6, 0.8], [0, 1]])
    threshold = float(np.float32(0.8))  # of the second and third
    assert [
        group.tolist() for group in duplicate_groups(StoredRows([rows], np.arange(3)), threshold).groups
    ] == [[1, 2]]
    above = float(np.nextafter(np.float32(0.8), np.float32(1)))
    assert duplicate_groups(StoredRows([rows], np.arange(3)), above).groups == []


def test_equal_images_take_little_memory(monkeypatch):
    sizes = []
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 1000)
    label = duplicates.component_labels

    def noted(edges, count):
        sizes.append(edges.shape[1])
        return label(edges, count)

    monkeypatch.setattr(duplicates, "component_labels", noted)
    monkeypatch.setattr(duplicates, "ROWS", 10)
    rows = np.tile(np.float32([[1, 0]]), (200, 1))
    groups, similarities = duplicate_groups(StoredRows([rows], np.arange(200)), 0.9)
    assert [group.tolist() for group in groups] == [list(range(200))]
    assert similarities.tolist() == [1] * 200
    assert max(sizes) < 200 * 199 / 2 / 5  # of all pairs


def test_no_images_have_no_groups():
    assert duplicate_groups(StoredRows([], np.arange(0)), 0.9).groups == []
    rows = np.float32([[1, 0]])
    assert duplicate_groups(StoredRows([rows], np.arange(1)), 0.9).groups == []


@pytest.fixture
def images(tmp_path):
    """A folder of six different images, a copy of c, and two that differ a little from a."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate("abcdef"):
        draw_image(folder / f"{name}.png", seed)
    shutil.copy(folder / "c.png", folder / "more" / "copy.png")
    image = Image.open(folder / "a.png")
    Image.eval(image, lambda value: min(value + 1, 255)).save(folder / "more" / "brighter.png")
    image.resize((128, 96), Image.Resampling.NEAREST).save(folder / "z.png")
    return folder


def test_copies_are_as_similar_as_possible(command, images):
    (images / "z.png").unlink()
    (images / "more" / "brighter.png").unlink()
    for name in "abdef":
        shutil.copy(images / f"{name}.png", images / "more")
    assert command("index", images, *FAST_INDEX)[0] == 0
    out = command("duplicates", "--threshold", "1")[1]
    assert [line.split("\t")[0] for line in out.splitlines()] == list("112233445566")


def test_copies_are_listed_by_group(command, images):
    assert command("index", images, *FAST_INDEX)[0] == 0
    status, out, err = command("duplicates", "--threshold", "0.98", "--json", "groups.json")
    assert status == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    expected = [
        ("1", "a.png"),
        ("1", "more/brighter.png"),
        ("1", "z.png"),
        ("2", "c.png"),
        ("2", "more/copy.png"),
    ]
    assert [(row[0], row[2]) for row in rows] == [(group, str(images / name)) for group, name in expected]
    assert [row[1] for row in rows[3:]] == ["1.0000", "1.0000"]
    written = json.loads(Path("groups.json").read_text())
    assert written["threshold"] == 0.98
    assert [[one["path"] for one in group] for group in written["groups"]] == [
        [row[2] for row in rows if row[0] == number] for number in ("1", "2")
    ]
    groups = Search_Images.duplicates(threshold=0.98, json="groups.json", exclude=("more",))
    assert [[one.path.name for one in group] for group in groups] == [["a.png", "z.png"]]
    assert command("duplicates", "--threshold", "0.9", "--json", images / "a.png")[2].startswith(
        f"error: cannot replace {images / 'a.png'}"
    )


def test_deleted_images_are_noted(command, images, caplog):
    assert command("index", images, *FAST_INDEX)[0] == 0
    (images / "c.png").unlink()
    assert command("duplicates", "--threshold", "0.98")[0] == 0
    assert "1 of these images were deleted or changed" in caplog.text


def test_an_approximate_index_is_compared_exactly(command, images):
    pytest.importorskip("faiss")
    assert command("index", images, *FAST_INDEX)[0] == 0
    before = command("duplicates", "--threshold", "0.8")[1]
    assert command("index", images, *FAST_INDEX, "--approximate")[0] == 0
    assert command("duplicates", "--threshold", "0.8")[:2] == (0, before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no index at search_index"),
        (["--threshold", "0"], "'0' is not a number greater than 0, 1 at most"),
        (["--milvus", "photos.db"], "unrecognized arguments: --milvus photos.db"),
    ],
)
def test_an_error_is_one_line(command, words, message):
    status, out, err = command("duplicates", *words)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
