import contextlib
import copy
import functools
import json
import math
import os
import pickle
import random
import re
import struct
import tracemalloc

import numpy as np
import pytest

from utils.data.revisited_labels import as_json, read_labels, read_pickled_labels
from utils.errors import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
LABELS = {
    "imlist": ["all_souls_000000", "all_souls_000001", "oxford_000002", "radcliffe_000003"],
    "qimlist": ["all_souls_000013", "christ_church_000179"],
    "gnd": [
        {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": [0, 3], "hard": [1], "junk": []},
        {"bbx": [0.0, -1.0, 2.0, 3.0], "easy": [], "hard": [2], "junk": [1, 0]},
    ],
}


def in_arrays(indices=np.int64, box=np.float64):
    labels = copy.deepcopy(LABELS)
    for query in labels["gnd"]:
        query["bbx"] = np.array(query["bbx"], box)
        for level in ("easy", "hard", "junk"):
            query[level] = np.array(query[level], indices)
    return labels


@pytest.fixture
def read(tmp_path):
    """A function that reads labels from the bytes of a pickle."""

    def read(data):
        path = tmp_path / "gnd_roxford5k.pkl"
        path.write_bytes(data)
        return read_pickled_labels(path)

    return read


def pickled(labels):
    return pickle.dumps(labels, 4)


def types_in(value):
    if isinstance(value, dict):
        return {dict}.union(*map(types_in, value), *map(types_in, value.values()))
    return {type(value)}.union(*map(types_in, value)) if isinstance(value, list) else {type(value)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lists_and_arrays_give_the_same_plain_values(read, protocol):
    for labels in (LABELS, in_arrays(), in_arrays(">u2"), in_arrays("<i4"), in_arrays(np.uint8)):
        actual = read(pickle.dumps(labels, protocol))
        assert actual == LABELS
        assert types_in(actual) == {dict, list, str, int, float}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_tuples_views_and_single_precision_are_plain_values_too(read, protocol):
    labels = in_arrays(box=np.float32)
    labels["imlist"] = tuple(labels["imlist"])
    labels["gnd"][0]["easy"] = [np.int64(0), np.uint16(3)]
    labels["gnd"][0]["junk"] = np.array([])  # of floats, numpy's type for an empty list
    labels["gnd"][1]["junk"] = np.array([1, 9, 0, 9])[::2]
    labels["gnd"][1]["bbx"] = (np.float64(0), np.float32(-1), 2, 3.0)
    expected = copy.deepcopy(LABELS)
    expected["gnd"][0]["bbx"] = np.float32(LABELS["gnd"][0]["bbx"]).tolist()
    actual = read(pickle.dumps(labels, protocol))
    assert actual == expected
    assert types_in(actual) == {dict, list, str, int, float}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_1_and_numpy_2_have_other_names_for_the_same(read, protocol):
    names = {"numpy._core": "numpy.core"} if np.__version__ > "2" else {"numpy.core": "numpy._core"}
    data = pickle.dumps(in_arrays(), protocol)
    if protocol == 4 or protocol == 5:
        # text with its length before it, in a frame with its length
        for old, new in names.items():
            data = re.sub(
                rb"\x8c." + re.escape(old).encode() + rb"([a-z.]*)",
                lambda match, new=new: b"\x8c" + bytes([len(new) + len(match[1])]) + new.encode() + match[1],
                data,
                flags=re.DOTALL,
            )
        data = data[:2] + data[11:]
    else:
        for old, new in names.items():
            data = data.replace(old.encode(), new.encode())
    assert next(iter(names.values())).encode() in data
    assert read(data) == LABELS


def test_a_pickle_of_python_2_is_read(read):
    """The form of Python 2: text and the data of arrays as str."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x02tcnumpy\ndtype\n"
        b"(U\x02i8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10"
        + struct.pack("<qq", 0, 1)
        + b"tb"
    )
    names = b"](U\x03one" + b"U\x04\xe9\xe8\xe0\xfce"
    query = b"}(U\x03bbx](K\x01K\x02K\x03G" + struct.pack(">d", 4.5) + b"eU\x04easy" + array
    query += b"U\x04hard]U\x04junk](I1\neu"
    data = b"\x80\x02}(U\x06imlist" + names + b"U\x07qimlist](U\x01qeU\x03gnd](" + query + b"eu."
    assert read(data) == {
        "imlist": ["one", "éèàü"],
        "qimlist": ["q"],
        "gnd": [{"bbx": [1.0, 2.0, 3.0, 4.5], "easy": [0, 1], "hard": [], "junk": [1]}],
    }


def test_what_else_a_pickle_holds_is_left_out(read):
    labels = in_arrays()
    labels["version"] = 3
    labels["gnd"][0]["difficulty"] = "none"
    assert read(pickled(labels)) == LABELS


def test_labels_come_back_from_json_and_give_the_same_bytes(tmp_path, read):
    labels = read(pickled(in_arrays()))
    path = tmp_path / "gnd.json"
    path.write_bytes(as_json(labels))
    assert read_labels(path) == LABELS
    turned = dict(reversed(labels.items()))
    turned["gnd"] = [dict(reversed(query.items())) for query in labels["gnd"]]
    assert as_json(turned) == as_json(labels) == path.read_bytes()
    assert path.read_bytes().startswith(b'{"gnd": [{"bbx"') and path.read_bytes().endswith(b"}\n")


class Calls:
    """An object that is pickled as a call of a function."""

    def __init__(self, function, *args):
        self.reduced = (function, args)

    def __reduce__(self):
        return self.reduced


def array_of_objects(value):
    array = np.empty(1, object)
    array[0] = value
    return array


ATTACKS = {
    "system": lambda trace: Calls(os.system, f"touch {trace}"),
    "eval": lambda trace: Calls(eval, f"open({str(trace)!r}, 'w')"),
    "exec": lambda trace: Calls(exec, f"open({str(trace)!r}, 'w')"),
    "open": lambda trace: Calls(open, str(trace), "w"),
    "save": lambda trace: Calls(np.save, str(trace), 0),
    "type 'O8'": lambda trace: array_of_objects(Calls(os.system, f"touch {trace}")),
}
"""By the name in the error: an object that makes a file or folder when pickle loads it."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("named", ATTACKS)
def test_an_attack_is_refused_by_name_and_does_nothing(tmp_path, read, protocol, named):
    trace = tmp_path / "trace.npy"
    labels = in_arrays()
    labels["gnd"][1]["junk"] = ATTACKS[named](trace)
    data = pickle.dumps(labels, protocol)
    with pytest.raises(UserError, match=rf"gnd_roxford5k\.pkl is refused: .*{named}"):
        read(data)
    assert not trace.exists()
    with contextlib.suppress(TypeError):  # the result of the attack is no element of such an array
        pickle.loads(data)
    assert trace.exists(), "the attack has no effect"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (b"cfunctools\npartial\n(cos\nsystem\nVtouch TRACE\ntR(tR.", "functools.partial"),
        (
            b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(Vos\ntRVsystem\ntR(Vtouch TRACE\ntR.",
            "getattr",
        ),
        (b"(Vtouch TRACE\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nVtouch TRACE\no.", "os.system"),
        (b"cnumpy\nload\n(VTRACE\nNI01\ntR.", "numpy.load"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "numpy.dtype.__init__"),
        (b"cutils.data.plain_pickle\nSTAND_INS\n.", "utils.data.plain_pickle.STAND_INS"),
        (b"c_codecs\nencode\n(V6364\nVhex\ntR.", "encoding 'hex'"),
        (b"cnumpy\ndtype\n}V__call__\nI1\nsb.", "a change to a function"),
        (b"cnumpy\ndtype\n(N}V_function\nI1\nstb.", "a change to a function"),
        (b"cnumpy\ndtype\n(VO\ntR.", "type 'O'"),
        (b"cnumpy\ndtype\n(VV8\ntR.", "type 'V8'"),
        (b"cnumpy\ndtype\n(VS3\ntR.", "type 'S3'"),
        (b"Pelsewhere\n.", "'elsewhere'"),
        (b"Velsewhere\nQ.", "'elsewhere'"),
    ],
)
def test_an_attack_written_by_hand_is_refused_by_name_and_does_nothing(tmp_path, read, code, named):
    trace = tmp_path / "trace"
    with pytest.raises(UserError, match="is refused: ") as caught:
        read(code.replace(b"TRACE", str(trace).encode()))
    assert named in str(caught.value)
    assert not trace.exists()


def test_a_pickle_cannot_change_the_types_that_it_uses(read):
    for code in (
        b"cnumpy\ndtype\n}V__call__\nI1\nsb.",
        b"cnumpy\nndarray\n(tR(N}V__setstate__\nI1\nstb.",
        b"cnumpy\ndtype\n(Vi8\ntR}V_name\nVi2\nsb.",
        b"cnumpy\ndtype\n)\x81.",
    ):
        with pytest.raises(UserError):
            read(code)
    assert read(pickled(in_arrays())) == LABELS


def test_the_memory_that_a_pickle_asks_for_is_not_reserved(read):
    far_index_in_the_memo = b"\x80\x02Nr" + struct.pack("<I", 2**24) + b"."
    endless_bytes = [
        b"\x80\x05" + code + struct.pack("<Q", 2**26) + b"." for code in b"\x8d \x8e \x96".split()
    ]
    huge_array = pickled(in_arrays()).replace(b"\x4b\x02\x85", b"J\xff\xff\xff\x7f\x85")
    assert huge_array != pickled(in_arrays())
    for data in (far_index_in_the_memo, *endless_bytes, huge_array):
        tracemalloc.start()
        with pytest.raises(UserError):
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_off_anywhere_is_unreadable(read, protocol):
    full = pickle.dumps(in_arrays(), protocol)
    for size in range(0, len(full), 7):
        with pytest.raises(UserError, match=r"gnd_roxford5k\.pkl is (not a valid pickle|refused)"):
            read(full[:size])


def test_a_file_of_another_format_is_reported(read):
    for data in (
        b"<html>404 not found</html>",
        b"\x80\x09N.",
        b"\x80\x02\x82\x01.",
        json.dumps(LABELS).encode(),
    ):
        with pytest.raises(UserError, match="is not a valid pickle: download it again"):
            read(data)


def test_random_changes_of_a_pickle_raise_user_errors_only(read):
    rng = random.Random(0)
    failures = 0
    for number in range(600):
        data = bytearray(pickle.dumps(in_arrays(), number % 6))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            labels = read(data)
            assert types_in(labels) <= {dict, list, str, int, float}
        except UserError:
            failures += 1
    assert failures > 300


@pytest.mark.parametrize("array", [np.zeros((2, 2), int), np.array(1), np.array(["a"]), np.array([1j])])
def test_arrays_of_other_shapes_and_types_are_refused(read, array):
    for protocol in PROTOCOLS:
        labels = in_arrays()
        labels["gnd"][0]["easy"] = array
        with pytest.raises(UserError):
            read(pickle.dumps(labels, protocol))


def set_in(labels, keys, value):
    *path, last = keys
    functools.reduce(lambda part, key: part[key], path, labels)[last] = value


MALFORMED = [
    *(
        (["gnd", 1, level], [index])
        for level in ("easy", "hard", "junk")
        for index in (-1, 4, 1.0, "1", True)
    ),
    *((["gnd", 0, "easy"], value) for value in (None, 1, "0", {"0": 1}, [[0]])),
    *(
        (["gnd", 0, "bbx"], box)
        for box in ([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], [1, 2, 3, None], None)
    ),
    *((["gnd", 0, "bbx"], [1, 2, 3, side]) for side in (math.inf, math.nan, True, 10**400)),
    *((["imlist", 1], name) for name in (None, 3, "", ".", "..", "a/b", "a\\b", "../a", "a\nb", ["a"])),
    *((["qimlist", 1], name) for name in (None, "../a")),
    *(([key], value) for key in ("imlist", "qimlist", "gnd") for value in (None, "text", 3, {}, [])),
    (["qimlist"], ["one"]),
    (["qimlist"], ["one", "two", "three"]),
    *((["gnd", 0], value) for value in (None, [], "text", {"bbx": [1, 2, 3, 4]})),
]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_labels_as_json_in_another_encoding_are_reported(tmp_path, encoding):
    path = tmp_path / "gnd.json"
    path.write_bytes(json.dumps(LABELS).encode(encoding))
    with pytest.raises(UserError, match=r"gnd\.json, line 1: cannot be read as text: save it as UTF-8"):
        read_labels(path)


def test_a_list_that_holds_itself_many_times_is_not_written_out(read):
    nested = []
    for _ in range(60):
        nested = [nested, nested]  # 2 ** 60 lists if each is visited
    labels = in_arrays()
    labels["imlist"][0] = nested
    with pytest.raises(UserError, match="expected an image name, got list"):
        read(pickled(labels))


@pytest.mark.parametrize(("keys", "value"), MALFORMED)
def test_labels_of_another_form_are_reported(tmp_path, read, keys, value):
    labels = copy.deepcopy(LABELS)
    set_in(labels, keys, value)
    path = tmp_path / "gnd.json"
    path.write_bytes(json.dumps(labels).encode())
    for attempt in (lambda: read(pickled(labels)), lambda: read_labels(path)):
        with pytest.raises(UserError, match="does not hold the labels of ROxford or RParis"):
            attempt()


@pytest.mark.parametrize(
    "keys", [["imlist"], ["qimlist"], ["gnd"], *(["gnd", 0, key] for key in LABELS["gnd"][0])]
)
def test_missing_keys_are_reported(read, keys):
    labels = copy.deepcopy(LABELS)
    *path, last = keys
    del functools.reduce(lambda part, key: part[key], path, labels)[last]
    with pytest.raises(UserError, match=f"does not hold the labels .*{last}"):
        read(pickled(labels))


def test_labels_that_are_no_dict_are_reported(read):
    for value in ([], None, "imlist", np.arange(3)):
        with pytest.raises(UserError, match="does not hold the labels"):
            read(pickled(value))


def test_invalid_json_is_reported(tmp_path):
    path = tmp_path / "gnd.json"
    for data in (b"", b"{", b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"gnd\.json is not valid JSON"):
            read_labels(path)


@pytest.mark.parametrize("reader", [read_labels, read_pickled_labels])
def test_a_missing_file_is_reported(tmp_path, reader):
    with pytest.raises(UserError, match="nowhere is missing"):
        reader(tmp_path / "nowhere")
