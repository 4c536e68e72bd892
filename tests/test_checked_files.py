import os
import tracemalloc
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import pytest

from utils.errors import BadFileError, UnreadableFileError
from utils.files.arrays import map_array, read_array, read_arrays
from utils.files.records import Setting, check_type, read_json


class Item(TypedDict):
    name: str
    sizes: list[float]


class Schema(TypedDict):
    items: dict[str, Item]
    kind: Literal["a", "b"]
    count: int
    note: str | None


GOOD = '{"items": {"x": {"name": "n", "sizes": [1, 0.5]}}, "kind": "a", "count": 3, "note": null, "more": 1}'


def test_json_is_returned_as_it_is(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("\ufeff" + GOOD, encoding="utf-8")
    assert read_json(path, Schema) == {
        "items": {"x": {"name": "n", "sizes": [1, 0.5]}},
        "kind": "a",
        "count": 3,
        "note": None,
        "more": 1,
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is not JSON"),
        (b"\0", "it is not JSON"),
        (b"\xff{}", "it is not JSON in UTF-8"),
        (GOOD.encode("utf-16"), "it is not JSON in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "it is list where dict is expected"),
        (b"{}", "it has no '"),
        (GOOD.replace("3", "true").encode(), "'count' of it is True where int is expected"),
        (GOOD.replace("3", "3.0").encode(), "'count' of it is 3.0 where int is expected"),
        (GOOD.replace("3", "9" * 5000).encode(), "an integer of more than 64 bits"),
        (GOOD.replace("3", "9223372036854775808").encode(), "an integer of more than 64 bits"),
        (GOOD.replace("0.5", "NaN").encode(), "NaN', which is not a finite number"),
        (GOOD.replace("0.5", "-Infinity").encode(), "-Infinity', which is not a finite number"),
        (GOOD.replace("0.5", "1e999").encode(), "1e999', which is not a finite number"),
        (GOOD.replace("0.5", '"1"').encode(), "an item of 'sizes' of 'x' of 'items' of it is '1'"),
        (GOOD.replace('"a"', '"c"').encode(), "'kind' of it is 'c' where Literal"),
        (GOOD.replace('"a"', "[]").encode(), "'kind' of it is list where Literal"),
        (GOOD.replace("null", "1").encode(), r"'note' of it is 1 where str \| None is expected"),
        (GOOD.replace('"more"', '"kind"').encode(), "it has a key twice"),
    ],
)
def test_other_json_is_one_line(tmp_path, data, message):
    path = tmp_path / "f.json"
    path.write_bytes(data)
    with pytest.raises(BadFileError, match=rf"^{path} is unreadable: [^\n]*{message}[^\n]*$"):
        read_json(path, Schema)


@dataclass
class Fields:
    step: int = 0


def test_fields_of_a_dataclass_are_all_there_and_no_others():
    check_type({"step": 1}, Fields)
    for value in ({}, {"step": 1, "more": 2}, {"step": "1"}):
        with pytest.raises(ValueError, match=r"step|more"):
            check_type(value, Fields)


def test_settings_are_plain_values_and_lists_of_them():
    check_type(
        {"a": 1, "b": 0.5, "c": None, "d": True, "e": "x", "f": [1, 0.5], "g": ["x"]}, dict[str, Setting]
    )
    for value in ([[1]], {}, [None], ["x", 1]):
        with pytest.raises(ValueError, match="'a' of it"):
            check_type({"a": value}, dict[str, Setting])


@pytest.mark.parametrize(
    "read", [lambda path: read_json(path, dict), lambda path: read_array(path, (np.floating,))]
)
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "f")
    with pytest.raises(BadFileError, match="it is a pipe, not a file"):
        read(tmp_path / "f")
    with pytest.raises(BadFileError, match="it is a folder, not a file"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UnreadableFileError, match=r"cannot read .*symbolic links"):
        read(tmp_path / "loop")


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (4, 3), (5000, 7)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2"])
def test_arrays_come_back_as_numpy_reads_them(tmp_path, shape, order, dtype):
    array = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    actual = read_array(tmp_path / "a.npy", (np.floating, np.integer))
    np.testing.assert_array_equal(actual, np.load(tmp_path / "a.npy"), strict=False)
    assert actual.shape == array.shape
    assert actual.dtype == array.dtype.newbyteorder("=")
    assert actual.flags.c_contiguous
    np.savez_compressed(tmp_path / "a.npz", a=array)
    kinds = (np.floating, np.integer)
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz", {"a": (kinds, shape)})["a"], array)


def test_a_mapped_array_changes_its_file_in_the_mode_for_it_alone(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3), np.float32))
    for mode, expected in (("c", 0), ("r+", 1)):
        array = map_array(path, (np.float32,), (None, 3), mode)
        array[:] = 1
        array.flush()
        assert np.load(path).max() == expected
    with pytest.raises(ValueError, match="read-only"):
        map_array(path, (np.float32,), (2, 3))[0] = 1


def header(shape, descr="'<f4'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no complete .npy file"),
        (b"<html>", "no complete .npy file"),
        (b"\x93NUMPY\x09\x00", "no complete .npy file"),
        (header("(2, 3)")[:50], "no complete .npy file"),
        (header("(" * 90), "no complete .npy file"),
        (header("(2, 3)") + bytes(23), "it has 151 bytes but its header says 152"),
        (header("(2, 3)") + bytes(25), "it has 153 bytes but its header says 152"),
        (header("(100000000, 3)"), "it has 128 bytes but its header says 1200000128"),
        (header("(9999999999999999999999, 3)"), "but its header says"),
        (header("(-2, 3)"), "its shape is"),
        (header("(2, True)"), "its shape is"),
        (header("(2, 4)") + bytes(32), "its shape is 2 x 4, expected n x 3"),
        (header("(6,)") + bytes(24), "its shape is 6, expected n x 3"),
        (header("(2, 3)", "'<f8'") + bytes(48), "of type float64, expected float32"),
        (header("(2, 3)", "'|O'") + bytes(48), "of type object, expected float32"),
        (header("(2, 3)", "[('a', '<f4')]") + bytes(24), "expected float32"),
    ],
)
def test_other_arrays_are_one_line_and_take_no_memory(tmp_path, data, message):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    tracemalloc.start()
    for read in (read_array, map_array):
        with pytest.raises(BadFileError, match=rf"^{path} is unreadable: [^\n]*{message}[^\n]*$"):
            read(path, (np.float32,), (None, 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("array", [np.zeros((2, 3), ">f4"), np.zeros((2, 3), "<f4", order="F")])
def test_another_order_is_not_mapped(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(BadFileError, match="not in native byte order"):
        map_array(tmp_path / "a.npy", (np.float32,), (2, 3))


def test_an_unreadable_archive_of_arrays_is_one_line_of_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.ones(1000))
    expected = {"a": ((np.float64,), (1000,))}
    data_of_file = path.read_bytes()
    for data in (
        b"",
        b"PK",
        data_of_file[:-1],
        data_of_file[:500],
        data_of_file.replace(b"a.npy", b"b.npy"),
        data_of_file[:600] + b"!" + data_of_file[601:],
    ):
        path.write_bytes(data)
        with pytest.raises(BadFileError, match=rf"^{path} is unreadable: [^\n]+$"):
            read_arrays(path, expected)
