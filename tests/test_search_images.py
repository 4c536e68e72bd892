import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image, draw_images
from helpers import FAST_INDEX, FAST_OPTIONS
from PIL import Image

import Search_Images
from models.backbones.registry import BACKBONES
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.descriptors import store as descriptor_store
from utils.descriptors.prepared_network import loaded_network
from utils.descriptors.rows import StoredRows
from utils.errors import UserError
from utils.file_names import CATALOGUE, INDEX_STORE, STORE_SETTINGS
from utils.files.lock import only_writer
from utils.image_index.image_index import ImageIndex, read_index
from utils.images import batches as size_batches
from utils.images.loading import InputImage
from utils.photo_search import matching
from utils.saved_settings import METHOD
from utils.weights.backbone_weights import read_backbone_weights

ROOT = Path(__file__).parents[1]


@pytest.fixture
def images(tmp_path):
    """A folder of six images, two of them in folders below it."""
    folder = tmp_path / "images"
    draw_images(folder, ["a.png", "b.png", "c.png", "d.jpg", "more/e.png", "more/still/f.png"])
    return folder


def described(monkeypatch):
    """Return a list to which the name of each decoded file is appended from now on."""
    names = []
    load_pixels = size_batches.load_pixels

    def note(image, longer_side):
        names.append(image.path.name)
        return load_pixels(image, longer_side)

    monkeypatch.setattr(size_batches, "load_pixels", note)
    return names


def test_an_image_of_the_index_comes_back_first_and_others_by_falling_dot_product(command, indexed):
    vectors = Search_Images.describe(sorted(indexed.rglob("*.*g")), **FAST_OPTIONS)
    paths = [str(path) for path in sorted(indexed.rglob("*.*g"))]
    for index, path in enumerate(paths):
        status, out, _ = command("query", path, "--top", "4")
        assert status == 0
        rows = [line.split("\t") for line in out.splitlines()]
        similar = vectors @ vectors[index]
        expected = np.argsort(-similar)[:4]
        assert [row[0] for row in rows] == ["1", "2", "3", "4"]
        assert [row[2] for row in rows] == [paths[other] for other in expected]
        assert rows[0][2] == path
        assert [float(row[1]) for row in rows] == pytest.approx(similar[expected].tolist(), abs=1e-4)


def test_only_new_and_changed_images_are_described_again_and_gone_ones_removed(command, indexed, monkeypatch):
    decoded = described(monkeypatch)
    command("index", indexed, *FAST_INDEX)
    assert decoded == []
    draw_image(indexed / "new.png", 50)
    draw_image(indexed / "b.png", 51, size=(72, 48))
    (indexed / "more" / "e.png").unlink()
    status, out, _ = command("index", indexed, *FAST_INDEX)
    assert status == 0
    assert sorted(decoded) == ["b.png", "new.png"]
    assert out == f"6 images of {indexed} are in search_index: 2 new or changed, 2 removed\n"
    index = read_index(Path("search_index"))
    assert index.names == ["a.png", "b.png", "c.png", "d.jpg", "more/still/f.png", "new.png"]
    np.testing.assert_allclose(
        index.rows[:],
        Search_Images.describe([index.path(number) for number in range(6)], **FAST_OPTIONS),
        atol=1e-6,
    )


def test_the_store_is_tidied_once_most_of_it_no_longer_counts(command, indexed):
    store = Path("search_index", "descriptors")
    for round_number in range(3):
        for seed, path in enumerate(sorted(indexed.rglob("*.png"))):
            draw_image(path, 100 * round_number + seed, size=(64, 56 + 8 * round_number))
        assert command("index", indexed, *FAST_INDEX)[0] == 0
        stored = sum(len(np.load(path.with_suffix(".npy"))) for path in store.glob("shard-*.json"))
        assert stored <= 12
    index = read_index(Path("search_index"))
    np.testing.assert_allclose(
        index.rows[:],
        Search_Images.describe([index.path(number) for number in range(6)], **FAST_OPTIONS),
        atol=1e-6,
    )


def test_of_equal_images_the_one_that_is_searched_for_comes_first(command, images):
    shutil.copy(images / "c.png", images / "a copy.png")
    command("index", images, *FAST_INDEX)
    for name in ("a copy.png", "c.png"):
        _, out, _ = command("query", images / name, "--top", "2")
        names = [Path(line.split("\t")[2]).name for line in out.splitlines()]
        assert names[0] == name
        assert sorted(names) == ["a copy.png", "c.png"]


def test_a_box_is_searched_for_as_that_part_of_the_image(command, indexed):
    _, out, _ = command("query", indexed / "a.png", "--box", "0", "0", "40", "40", "--top", "6")
    (query,) = Search_Images.describe([InputImage(indexed / "a.png", (0, 0, 40, 40))], **FAST_OPTIONS)
    index = read_index(Path("search_index"))
    expected = [str(index.path(number)) for number in np.argsort(-index.rows[:] @ query)]
    assert [line.split("\t")[2] for line in out.splitlines()] == expected
    status, out, err = command("query", indexed / "a.png", "--box", "70", "0", "90", "40")
    assert (status, out) == (2, "")
    assert err.startswith("error: the box 70 0 90 40 has no pixel inside")
    assert command("query", indexed / "a.png", "--box", "nan", "0", "9", "9")[2].startswith(
        "error: argument --box: 'nan' is not a number from"
    )


def test_images_outside_the_index_are_searched_for_and_python_gets_the_same(command, indexed, tmp_path):
    shutil.copy(indexed / "d.jpg", tmp_path / "elsewhere.jpg")
    _, out, _ = command("query", tmp_path / "elsewhere.jpg", "--json", "found.json")
    matches = Search_Images.search(tmp_path / "elsewhere.jpg", device="cpu")
    assert matches[0].path == indexed / "d.jpg"
    assert matches[0].similarity == pytest.approx(1, abs=1e-5)
    again = Search_Images.search(tmp_path / "elsewhere.jpg", index=read_index(Path("search_index")), top=2)
    assert again == matches[:2]
    written = json.loads(Path("found.json").read_text())
    assert written["query"] == str(tmp_path / "elsewhere.jpg")
    assert written["box"] is None
    assert [match["path"] for match in written["matches"]] == [
        line.split("\t")[2] for line in out.splitlines()
    ]
    assert [match["similarity"] for match in written["matches"]] == [match.similarity for match in matches]


def test_hostile_names_and_files_are_handled(command, images):
    hostile = [
        "quote\"'.png",
        "<script>alert(1)<&amp;.png",
        "line\nbreak\ttab.png",
        os.fsdecode(b"stray\xff byte.png"),
    ]
    for seed, name in enumerate(hostile, start=20):
        draw_image(images / "plain.png", seed)
        (images / "plain.png").rename(images / name)
    (images / "empty.jpg").write_bytes(b"")
    (images / "truncated.png").write_bytes((images / "a.png").read_bytes()[:-200])
    Image.new("1", (20000, 10000)).save(images / "huge.png")  # 200 megapixels in a few bytes
    frames = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    frames[0].save(images / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (64, 48), "red").save(images / "still.png")
    os.mkfifo(images / "pipe.jpg")
    (images / "no file.png").symlink_to(images / "nowhere.png")
    (images / "again").symlink_to(images)
    (images / "notes.txt").write_text("no image")

    status, out, err = command("index", images, *FAST_INDEX)
    assert status == 0, err
    assert out == f"{6 + 4 + 2} images of {images} are in search_index: 12 new or changed, 0 removed\n"
    names = read_index(Path("search_index")).names
    assert set(hostile) <= set(names)
    assert not {"empty.jpg", "truncated.png", "huge.png", "pipe.jpg", "notes.txt"} & set(names)

    for name in hostile:
        status, out, _ = command("query", images / name, "--json", "found.json", "--html", "found.html")
        assert status == 0
        assert len(out.splitlines()) == 12
        assert all(line.count("\t") == 2 for line in out.splitlines())
        assert json.loads(Path("found.json").read_text())["matches"][0]["path"] == str(images / name)
        tags = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes, tags=tags: tags.append(tag)
        parser.feed(Path("found.html").read_text(encoding="utf-8"))
        assert "script" not in tags
        assert tags.count("img") == 13
    _, out, _ = command("query", images / "animated.gif", "--top", "2")  # its first frame is red
    assert {Path(line.split("\t")[2]).name for line in out.splitlines()} == {"animated.gif", "still.png"}


def test_the_page_draws_attention_for_query_and_results(command, images, head_folder):
    options = ["--S", "64", "--no-whiten", "--device", "cpu", "--workers", "0", "--weights-dir", head_folder]
    assert command("index", images, *options)[0] == 0
    (images / "b.png").unlink()
    status, _, err = command(
        "query", images / "a.png", "--html", "found.html", "--weights-dir", head_folder, "--top", "3"
    )
    assert status == 0, err
    page = Path("found.html").read_text()
    # a thumbnail and a map of the query and of three results, unless the image was removed
    removed = page.count(">no image<")
    assert page.count("<img ") == 2 * (4 - removed)
    assert page.count("data:image/jpeg;base64,") == page.count("<img ")


@pytest.fixture
def head_folder(tmp_path):
    """A weights folder with a random attention head for the embedded backbone."""
    folder = tmp_path / "weights" / "efficientnet_lite0"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(
        ContextAwareRegionalAttention(1280).state_dict(), folder / "ContextAwareRegionalAttention_weights.pth"
    )
    return tmp_path / "weights"


def test_an_index_is_refused_for_other_options_other_weights_and_another_folder(
    command, images, head_folder, tmp_path
):
    options = ["--no-whiten", "--device", "cpu", "--workers", "0", "--weights-dir", head_folder]
    assert command("index", images, "--S", "64", *options)[0] == 0
    status, _, err = command("index", images, "--S", "32", *options)
    assert status == 2
    assert "S 64 (now 32)" in err
    (tmp_path / "others").mkdir()
    draw_image(tmp_path / "others" / "a.png")
    status, _, err = command("index", tmp_path / "others", "--S", "64", *options)
    assert status == 2
    assert f"search_index is the index of {images}" in err
    head = head_folder / "efficientnet_lite0" / "ContextAwareRegionalAttention_weights.pth"
    state = torch.load(head, weights_only=True)
    state["conv_att_2.bias"] += 1
    torch.save(state, head)
    status, out, err = command("query", images / "a.png", "--weights-dir", head_folder)
    assert (status, out) == (2, "")
    assert "; give the weights that it was made with by --weights-dir and --backbone-weights\n" in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_the_options_of_a_run_that_described_nothing_do_not_bind_the_next_run(
    command, images, head_folder, monkeypatch
):
    weights = head_folder / "efficientnet_lite0"
    (weights / "network.json").write_text('{"backbone": "another"}')
    options = ["--no-whiten", "--S", "64", "--device", "cpu", "--workers", "0", "--weights-dir", head_folder]
    assert "error: " in command("index", images, *options)[2]
    (weights / "network.json").unlink()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(size_batches, "load_pixels", interrupt)
        assert command("index", images, *options)[0] == 130
    assert command("index", images, *FAST_INDEX)[1].endswith("6 new or changed, 0 removed\n")
    assert "pooling rmac (now ra)" in command("index", images, *options)[2]


def test_an_index_with_other_backbone_weights_is_searched_with_the_same_file(command, images, tmp_path):
    state, _ = read_backbone_weights(BACKBONES["efficientnet_lite0"], tmp_path)
    state[next(iter(state))] *= -1
    torch.save(state, tmp_path / "other.pth")
    weights = ["--backbone-weights", tmp_path / "other.pth"]
    assert command("index", images, *FAST_INDEX, *weights)[0] == 0
    status, out, _ = command("query", images / "a.png", *weights, "--device", "cpu")
    assert (status, out.split()[:2]) == (0, ["1", "1.0000"])
    status, _, err = command("query", images / "a.png", "--device", "cpu")
    assert status == 2
    assert err.count("error:") == 1


def test_an_index_follows_its_folder_and_empties_with_it(command, indexed, tmp_path, monkeypatch, caplog):
    decoded = described(monkeypatch)
    moved = indexed.rename(tmp_path / "moved")
    assert command("query", moved / "a.png", "--top", "2")[1].startswith("1\t1.0000\t")
    assert "2 matches were deleted or changed" in caplog.text
    decoded.clear()
    assert command("index", moved, *FAST_INDEX)[0] == 0
    assert decoded == []
    assert command("query", moved / "a.png", "--top", "1")[1] == f"1\t1.0000\t{moved / 'a.png'}\n"
    outside = (moved / "a.png").rename(tmp_path / "outside.png")
    shutil.rmtree(moved / "more")
    for path in moved.iterdir():
        path.unlink()
    status, out, _ = command("index", moved, *FAST_INDEX)
    assert status == 0
    assert out == f"0 images of {moved} are in search_index: 0 new or changed, 6 removed\n"
    assert command("query", outside)[:2] == (0, "")


def test_files_that_are_no_images_are_noted(command, images, caplog):
    for name in ("notes.txt", "photo.psd", ".hidden.txt"):
        (images / name).write_text("no image")
    assert command("index", images, *FAST_INDEX)[0] == 0
    assert "2 files or folders are no images, or cannot be read (notes.txt, photo.psd)" in caplog.text


def test_thumbnails_are_left_out_with_a_note(command, images, caplog):
    (images / "@eaDir" / "a.png").mkdir(parents=True)
    draw_image(images / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_M.jpg")
    draw_image(images / "b_thumb.png")
    status, out, _ = command("index", images, *FAST_INDEX)
    assert status == 0
    assert out.startswith("6 images of")
    assert "left out 2 thumbnails or folders of thumbnails (@eaDir, b_thumb.png)" in caplog.text


def test_a_pipe_is_named_as_an_image_that_cannot_be_decoded(command, images, caplog):
    os.mkfifo(images / "pipe.jpg")
    assert command("index", images, *FAST_INDEX)[0] == 0
    assert f"left out {images / 'pipe.jpg'} cannot be decoded: it is a pipe, not a file" in caplog.text
    status, out, err = command("query", images / "pipe.jpg")
    assert (status, out) == (2, "")
    assert "it is a pipe" in err


def test_a_name_that_begins_like_a_users_home_is_a_name(command, images, tmp_path):
    shutil.copy(images / "b.png", "~backup.png")
    images.rename(tmp_path / "~x")
    assert command("index", "~x", "--index", "~index", *FAST_INDEX)[0] == 0
    _, out, _ = command("query", "~backup.png", "--index", "~index", "--top", "1")
    assert out.endswith(f"{tmp_path / '~x' / 'b.png'}\n")
    assert Search_Images.describe("~backup.png", **FAST_OPTIONS).shape == (1, 1280)


@pytest.mark.slow
def test_it_runs_from_any_folder_with_the_weights_that_come_with_it(images, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "Search_Images.py", "index", images, "--S", "64", "--device", "cpu"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert read_index(tmp_path / "search_index").settings["whiten"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["query", "a.png"], "no index at search_index"),
        (["index", "nowhere"], "no folder of images at nowhere"),
        (["index", "."], "no images in ."),
        ([], "index|query"),
        (["query"], "image"),
        (["query", "a.png", "--top", "0"], "'0' is not a whole number from 1 to 1000000000"),
        (["find", "a.png"], "find"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, words, message):
    status, out, err = command(*words)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_query_that_is_no_image_is_one_line(command, indexed, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for name in ("broken.jpg", "absent.jpg"):
        status, out, err = command("query", tmp_path / name)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert name in err


@pytest.mark.slow
def test_an_unreadable_index_is_one_line_of_error_and_made_again(command, indexed):
    catalogue = Path("search_index", "catalogue.json")
    record = {"folder": str(indexed), "keys": [1], "settings": {}, "precision": "float32"}
    valid = json.loads(catalogue.read_text())
    texts = ["{", "[]", "{}", json.dumps(record), json.dumps(record | {"folder": 3}), "[" * 100_000]
    texts += [
        json.dumps(valid | change) for change in ({"settings": {}}, {"folder": "a\0"}, {"precision": []})
    ]
    for text in texts:
        catalogue.write_text(text)
        status, _, err = command("query", indexed / "a.png")
        assert status == 2
        assert re.search(r"catalogue\.json is (unreadable|not valid)", err)
        assert command("index", indexed, *FAST_INDEX)[0] == 0
        assert command("query", indexed / "a.png")[0] == 0
    for shard in Path("search_index", "descriptors").glob("shard-*"):
        shard.unlink()
    assert "is not valid: index" in command("query", indexed / "a.png")[2]
    assert command("index", indexed, *FAST_INDEX)[0] == 0
    assert command("query", indexed / "a.png")[0] == 0


def test_an_index_of_maxima_can_be_searched(command, images):
    assert command("index", images, "--pooling", "mac", "--no-whiten", "--S", "64", "--device", "cpu")[0] == 0
    status, out, _ = command("query", images / "c.png", "--top", "1", "--html", "found.html")
    assert (status, out) == (0, f"1\t1.0000\t{images / 'c.png'}\n")


def test_an_index_of_generalised_means_is_searched_with_its_exponent(command, images):
    options = ["--pooling", "gem", "--no-whiten", "--S", "64", "--device", "cpu"]
    assert command("index", images, *options, "--gem-p", "2.5")[0] == 0
    index = read_index(Path("search_index"))
    assert index.settings["gem_p"] == 2.5
    shutil.copy(images / "c.png", "elsewhere.png")  # has another key, and is described again
    status, out, _ = command("query", "elsewhere.png", "--top", "1")
    assert (status, out) == (0, f"1\t1.0000\t{images / 'c.png'}\n")
    status, _, err = command("index", images, *options)
    assert status == 2
    assert "gem_p 2.5 (now 3.0)" in err


def test_an_image_comes_first_before_any_number_of_equal_images(command, images):
    for number in range(5):
        shutil.copy(images / "c.png", images / f"a{number}.png")
    command("index", images, *FAST_INDEX)
    for top in ("1", "3", "20"):
        _, out, _ = command("query", images / "c.png", "--top", top)
        names = [Path(line.split("\t")[2]).name for line in out.splitlines()]
        assert names[0] == "c.png"
        assert len(set(names)) == len(names)


def index_of(rows):
    names = [f"{number}.png" for number in range(len(rows))]
    stored = StoredRows([rows], np.arange(len(rows)))
    return ImageIndex(Path("images"), names, names, stored, {}, Path("search_index"))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("scale", [1, np.float32(1 - 2**-23)])
def test_an_image_of_the_index_finds_itself_before_equals_that_differ_by_rounding(count, scale):
    row = np.float32([0.6, 0.8])
    index = index_of(np.stack([row[::-1], row, row * scale, row]))
    nearest = index.nearest(row * scale, count, query_index=2)
    assert len(nearest) == count
    assert nearest[0][0] == 2
    assert [similarity for _, similarity in nearest] == sorted((pair[1] for pair in nearest), reverse=True)
    assert {number for number, _ in nearest} <= {0, 1, 2, 3}
    if count == 4:
        assert sorted(number for number, _ in nearest) == [0, 1, 2, 3]


@pytest.mark.parametrize("itself", [None, 1])
def test_similarities_of_float16_descriptors_are_1_at_most(itself):
    row = np.full(9, 1 / 3).astype(np.float16) * np.float16(1.001)
    assert float(row.astype(np.float64) @ row) > 1
    index = index_of(np.stack([row, row]))
    assert [pair[1] for pair in index.nearest(row.astype(np.float32), 2, itself)] == [1, 1]


def test_weights_that_change_while_a_program_runs_are_read_anew(images, head_folder):
    options = {"S": 64, "whiten": False, "device": "cpu", "workers": 0, "weights_dir": head_folder}
    before = Search_Images.describe([images / "a.png"], **options)
    path = head_folder / "efficientnet_lite0" / "ContextAwareRegionalAttention_weights.pth"
    state = torch.load(path, weights_only=True)
    state["conv_att_1.weight"] *= 5
    torch.save(state, path)
    after = Search_Images.describe([images / "a.png"], **options)
    assert np.abs(after - before).max() > 1e-5
    loaded_network.cache_clear()
    np.testing.assert_array_equal(Search_Images.describe([images / "a.png"], **options), after)


def test_a_second_indexing_at_the_same_time_is_refused(command, indexed):
    with only_writer(Path("search_index", "lock"), Path("search_index")):
        status, out, err = command("index", indexed, *FAST_INDEX)
        assert (status, out) == (2, "")
        assert err == "error: another process is writing to search_index: wait for it\n"
        assert command("query", indexed / "a.png")[0] == 0
    assert command("index", indexed, *FAST_INDEX)[0] == 0


INDEX = """
import sys
import Search_Images
from utils.descriptors import store as descriptor_store
descriptor_store.SHARD_ROWS = 2
print("ready", flush=True)
options = {"S": 64, "pooling": "rmac", "whiten": False, "device": "cpu", "workers": 0}
Search_Images.index(sys.argv[1], index=sys.argv[2], **options)
"""


@pytest.mark.slow
def test_an_indexing_killed_at_any_moment_leaves_an_index_that_answers(
    command, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(descriptor_store, "SHARD_ROWS", 2)
    index_folder = tmp_path / "search_index"
    assert command("index", images, *FAST_INDEX)[0] == 0
    rng = np.random.default_rng(0)
    for round_number in range(6):
        for seed in range(30):
            draw_image(images / f"many{seed}.png", 1000 * round_number + seed, size=(64, 64))
        before = read_index(index_folder).keys
        process = subprocess.Popen(
            [sys.executable, "-c", INDEX, images, index_folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.1, 1.2)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        index = read_index(index_folder)
        assert index.keys == before or len(index.keys) == 36
        assert command("query", images / "a.png", "--top", "1")[1].endswith("a.png\n")
    assert command("index", images, *FAST_INDEX)[0] == 0
    index = read_index(index_folder)
    assert len(index.names) == 36
    expected = Search_Images.describe([index.path(number) for number in range(36)], **FAST_OPTIONS)
    np.testing.assert_allclose(index.rows[:], expected, atol=1e-6)


def test_main_functions_check_their_options_as_the_command_line_does(images, tmp_path):
    with pytest.raises(UserError, match="pooling 'sum' is not one of"):
        Search_Images.index(images, index=tmp_path / "index", pooling="sum")
    with pytest.raises(UserError, match="S 0 is not a whole number from 1 to 32768"):
        Search_Images.describe([images / "a.png"], S=0)


def test_outputs_replace_no_image_and_no_file_of_the_user(command, indexed, tmp_path):
    (tmp_path / "mine.html").write_text("<!DOCTYPE html>\n<p>mine")
    images = [indexed / "a.png", indexed / "c.png"]
    before = [path.read_bytes() for path in images]
    for option in ("--json", "--html"):
        for path in (*images, tmp_path / "mine.html", indexed):
            status, out, err = command("query", indexed / "a.png", option, path)
            assert (status, out) == (2, "")
            assert err.startswith(f"error: cannot replace {path}")
        for _ in range(2):  # a file that it wrote is replaced
            assert command("query", indexed / "a.png", "--top", "1", option, tmp_path / option[2:])[0] == 0
        status, _, err = command("query", indexed / "a.png", "--top", "1", option, "/dev/null")
        assert status == 0, err
    assert [path.read_bytes() for path in images] == before
    assert (tmp_path / "mine.html").read_text().endswith("mine")
    assert json.loads((tmp_path / "json").read_text())["matches"][0]["rank"] == 1
    same = ["--json", tmp_path / "both", "--html", tmp_path / "both"]
    status, _, err = command("query", indexed / "a.png", *same)
    assert (status, (tmp_path / "both").exists()) == (2, False)
    assert "name the same file" in err


def test_an_index_with_an_unreadable_shard_is_not_changed(command, images, indexed):
    index = Path("search_index")
    shard = next(index.rglob("shard-*.npy"))
    shard.write_bytes(shard.read_bytes()[:-8])
    before = sorted(index.rglob("*"))
    status, _, err = command("index", images, *FAST_INDEX)
    assert status == 2
    assert "is unreadable" in err
    assert sorted(index.rglob("*")) == before


@pytest.mark.parametrize("folder", ["\\ud800", "a\\u0000b", ""])
def test_a_catalogue_of_a_folder_that_cannot_exist_is_one_line(command, indexed, folder):
    catalogue = Path("search_index", "catalogue.json")
    record = json.loads(catalogue.read_text())
    text = json.dumps(record | {"folder": "FOLDER"}).replace("FOLDER", folder)
    catalogue.write_text(text)
    status, _, err = command("query", indexed / "a.png")
    assert status == 2
    assert err.startswith("error: search_index/catalogue.json is not valid")
    assert err.count("\n") == 1


def test_an_index_of_another_method_is_named_by_its_folder(command, indexed):
    index = Path("search_index")
    for path in (index / CATALOGUE, index / INDEX_STORE / STORE_SETTINGS):
        record = json.loads(path.read_text())
        settings = record.get("settings", record)
        settings[METHOD] -= 1
        path.write_text(json.dumps(record))
    status, out, err = command("query", indexed / "a.png")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {index} was saved by another version")
    assert str(indexed) not in err


def test_an_indexed_image_is_searched_without_the_network(command, indexed, monkeypatch):
    def fail(*arguments):
        raise AssertionError("the network was loaded")

    monkeypatch.setattr(matching, "prepared_network", fail)
    status, out, _ = command("query", indexed / "a.png", "--top", "1")
    assert (status, out.split("\t")[2]) == (0, f"{indexed / 'a.png'}\n")
    status, _, err = command("query", indexed / "a.png", "--html", "page.html")
    assert status == 1
    assert "AssertionError: the network was loaded" in err


QUERY = """
import sys
import Search_Images
Search_Images.command_line(["query", sys.argv[1], "--index", sys.argv[2], "--top", "1"])
slow = {"numba", "torchvision", "matplotlib", "scipy", "timm", "faiss", "torch._dynamo"}
print(sorted(slow & sys.modules.keys()))
"""


def test_a_query_imports_no_slow_packages(command, indexed, tmp_path):
    draw_image(tmp_path / "new.png", 77)
    arguments = [sys.executable, "-c", QUERY, tmp_path / "new.png", tmp_path / "search_index"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("png\n[]\n")
