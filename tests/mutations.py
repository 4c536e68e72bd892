"""Strategies that change the bytes or the values of valid files."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

TOKENS = [
    *(
        b"\0",
        b"\n",
        b"\r\n",
        b" ",
        b'"',
        b"{",
        b"]",
        b",",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xe9",
    ),
    *(b"-1", b"1_0", b"nan", b"Infinity", b"1e999", "\u0663".encode(), b"null", b"true", b"../", b"\x1b[2J"),
    *(b"9" * 5000, b"[" * 100_000, b"\xff" * 8, b"\0" * 64, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"),
]
"""Bytes that readers of text and numbers may fail on."""

DEEP = "nested 100,000 deep"
"""Placeholder for a deeply nested list in a tree that is written as JSON."""

PLAIN = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**64, 10**400, 0.5, -0.5, 1e308, math.nan, math.inf),
    *("", "a", "1", "nan", "a\0b", "a\nb", "\ud800", "../a", "/", "x" * 5000, DEEP),
    *([], {}, [[]], [0], ["a", "a"], {"a": 1}, [[1, 2], [3]], {"": None}),
]

ARRAYS = [
    *(
        np.zeros(0),
        np.zeros((0, 4)),
        np.zeros((3, 0)),
        np.zeros((3, 4)),
        np.ones((3, 4)),
        np.ones((3, 5), np.float32),
    ),
    *(np.full((3, 4), np.nan, np.float32), np.full((3, 4), np.inf, np.float16), np.full((3, 4), 1e300)),
    *(np.ones((3, 4), np.int64), np.ones((3, 4), bool), np.ones((3, 4), complex), np.ones((3, 4), ">f4")),
    *(np.asfortranarray(np.ones((3, 4), np.float32)), np.ones((2, 3, 4)), np.array(1.5), np.array("text")),
    *(np.array(["a", "b"]), np.array([b"x"]), np.ones(3, [("a", "f4"), ("b", "i4")]), np.array([1, None])),
    *(
        np.ones(4),
        -np.ones(4),
        np.array(-1),
        np.array(np.nan),
        np.ones((4, 4)),
        np.ones((1, 4), np.longdouble),
    ),
    *(np.array("2020", "datetime64[D]"), np.ones((4, 4), np.float16)),
]


def tensors():
    """Return tensors of unusual types, shapes and values."""
    return [
        *(torch.zeros(0), torch.tensor(1.0), torch.tensor(-3), torch.ones(3, dtype=torch.int64)),
        *(
            torch.full((3, 4), math.nan),
            torch.full((64, 8, 1), 1e30),
            torch.ones(64, 8, 1, dtype=torch.float64),
        ),
        *(torch.ones(64, 8, 1, dtype=torch.int32), torch.ones(64, 8, 1, dtype=torch.complex64)),
        *(
            torch.ones(64, dtype=torch.bfloat16),
            torch.ones(64, 8, 1).to_sparse(),
        ),
        *(
            torch.empty(64, 8, 1, device="meta"),
            torch.nn.Parameter(torch.ones(64)),
            torch.full((64,), math.inf),
        ),
        *(torch.ones(64, dtype=torch.bool), torch.full((64, 8, 1), 1e39, dtype=torch.float64)),
    ]


@st.composite
def changed_bytes(draw, data, others):
    """Draw the bytes of a file after one to four changes, or sometimes the bytes of another file.

    Args:
        data: the bytes of a valid file.
        others: the bytes of files of other kinds.
    """
    if draw(st.integers(0, 24)) == 0:
        return draw(st.sampled_from(others))
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        end = start + length
        match draw(st.integers(0, 8)):
            case 0 if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case 1 if start < len(data):
                data[start] = draw(st.integers(0, 255))
            case 2:
                del data[start:]
            case 3:
                data[start:start] = draw(st.sampled_from(TOKENS) | st.binary(max_size=20))
            case 4:
                del data[start:end]
            case 5:
                data[start:start] = data[start:end] * draw(st.integers(1, 3))
            case 6:
                other = draw(st.sampled_from(others))
                cut = draw(st.integers(0, len(other)))
                data[start:] = other[cut:]
            case 7:
                data[start:end] = draw(st.sampled_from(TOKENS))
            case _:
                target = draw(st.integers(0, len(data)))
                data[target:target] = data[start:end]
    return bytes(data)


@st.composite
def changed_tree(draw, tree, values):
    """Draw a tree of dicts, lists and other values with one to three changed nodes.

    Args:
        tree: the content of a valid file.
        values: replacements of a node.
    """
    for _ in range(draw(st.integers(1, 3))):
        paths = list(_paths(tree))
        path = paths[draw(st.integers(0, len(paths) - 1))]
        tree = _changed(
            tree, path, draw(st.integers(0, 5)), draw(st.sampled_from(values)), draw(st.sampled_from(paths))
        )
    return tree


def _paths(tree, path=()):
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from _paths(child, (*path, key))


def _at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def _changed(tree, path, action, value, other):
    """Return a copy of a tree with the node at a path replaced, dropped, renamed, repeated or nested."""
    if not path:
        return value if action == 0 else tree
    key, *rest = path
    if rest:
        copy = tree.copy()
        copy[key] = _changed(tree[key], rest, action, value, other)
        return copy
    copy = tree.copy()
    if action == 1:
        del copy[key]
    elif action == 2 and isinstance(copy, dict):
        copy[value if isinstance(value, str | int | float | None) else "renamed"] = copy.pop(key)
    elif action == 2:
        copy.insert(key, copy[key])
    elif action == 3:
        copy[key] = [copy[key]] if isinstance(value, list) else {"a": copy[key]}
    else:
        copy[key] = value
    return copy
