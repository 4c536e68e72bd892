"""Files of descriptors for other programs: Parquet, or a NumPy array with a JSON file of its paths.

Descriptors are written in blocks, in the number type in which they are stored.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from utils.descriptors.keys import name_and_box
from utils.descriptors.rows import BLOCK, StoredRows
from utils.descriptors.store import FORMAT, DescriptorStore
from utils.errors import BadFileError, UserError
from utils.file_names import STORE_SETTINGS
from utils.files.outputs import check_output_file
from utils.files.records import Setting, read_json
from utils.files.writing import is_special, make_folder, replace_file, user_error_if_unwritable
from utils.images.loading import Box

log = logging.getLogger(__name__)

PARQUET, NPY = ".parquet", ".npy"
PATHS_SUFFIX = ".json"

WRITER = "Search_Images.py export"
MARK = b"written by"
"""Key in the metadata of a Parquet file by which a file of this program is recognised."""

JSON_BEGIN = b'{\n  "written by": "' + WRITER.encode() + b'",\n'
"""First bytes of the JSON file beside an array."""


class Table(NamedTuple):
    """Descriptors with the paths of their images."""

    paths: Sequence[str]
    boxes: Sequence[Box | None] | None
    """Box of each image, None for the complete image; None if no image can have a box."""
    rows: StoredRows
    """(N, D)."""


def check_export_file(path: Path) -> None:
    """Check, before any work, that descriptors can be written to a file.

    Raises:
        UserError: the name has another suffix, pyarrow is missing, or the file cannot be written or would
            replace a file of the user.
    """
    if path.suffix not in (PARQUET, NPY):
        raise UserError(f"cannot export to {path}: its name must end in {PARQUET} or {NPY}")
    if is_special(path):
        raise UserError(f"cannot export to {path}: it is a device or a pipe: name a file")
    if path.suffix == PARQUET:
        check_output_file(path, b"PAR1")
        _check_parquet(path)
        return
    check_output_file(path, np.lib.format.MAGIC_PREFIX)
    names = paths_file(path)
    check_output_file(names, JSON_BEGIN)
    if path.exists() and path.stat().st_size and not names.exists():
        raise UserError(
            f"cannot replace {path}: this program writes {names.name} beside it: name another file"
        )


def paths_file(array: Path) -> Path:
    """Return the JSON file of paths beside a .npy file."""
    return array.with_suffix(PATHS_SUFFIX)


def stored_table(folder: Path, pooling: str | None) -> Table:
    """Return all descriptors in the store of an evaluation, in the order of the store.

    Args:
        folder: folder of the store.
        pooling: the pooling whose descriptors to return; None if the store has only one pooling.

    Raises:
        UserError: there is no store, or it is not valid or has no descriptors of the pooling.
    """
    store, settings = _open_existing(folder)
    poolings = str(settings.get("pooling")).split(",")
    chosen = pooling or poolings[0]
    if chosen not in poolings:
        raise UserError(f"{folder} has no descriptors of pooling {chosen}, only of {' and '.join(poolings)}")
    if pooling is None and len(poolings) > 1:
        raise UserError(f"{folder} has descriptors of {' and '.join(poolings)}: choose one by --pooling")
    keys = store.keys()
    try:
        names, boxes = zip(*map(name_and_box, keys), strict=True) if keys else ((), ())
    except ValueError as error:
        raise BadFileError(f"{folder} is not valid: it has a key without the name of an image") from error
    rows = store.rows(keys)
    width, position = rows.shape[1] // len(poolings), poolings.index(chosen)
    return Table(names, boxes, rows.columns(slice(position * width, (position + 1) * width)))


def _open_existing(folder: Path) -> tuple[DescriptorStore, dict[str, Setting]]:
    """Open a store with any settings, and return these too.

    Raises:
        UserError: there is no store, or it is of another version or not valid.
    """
    path = folder / STORE_SETTINGS
    try:
        settings = read_json(path, dict[str, Setting])
    except FileNotFoundError as error:
        advice = "name the folder that an evaluation got as --descriptors"
        raise UserError(f"no descriptors at {folder}: {advice}") from error
    precision = settings.get("store precision")
    if settings.get("format") != FORMAT or precision not in ("float32", "float16"):
        raise UserError(f"{folder} was written by another version of this program: evaluate again")
    store = DescriptorStore(folder, "float16" if precision == "float16" else "float32")
    store.read()
    return store, settings


def export(path: Path, table: Table) -> None:
    """Write descriptors to a Parquet file, or to a .npy file and a JSON file of paths beside it.

    Raises:
        UserError: as for `check_export_file`, or there are no descriptors.
    """
    check_export_file(path)
    if not len(table.rows):
        raise UserError("there are no descriptors to export: index images first")
    make_folder(path.parent)
    if path.suffix == NPY:
        _write_npy(path, table)
    else:
        _write_parquet(path, table)


def _write_npy(path: Path, table: Table) -> None:
    contents: dict[str, object] = {MARK.decode(): WRITER, "paths": table.paths}
    if table.boxes is not None:
        contents["boxes"] = table.boxes
    header = {"descr": table.rows.dtype.str, "fortran_order": False, "shape": table.rows.shape}
    names = paths_file(path)
    with replace_file(names) as names_file:
        for text in json.JSONEncoder(indent=2).iterencode(contents):
            names_file.write(text.encode())
        names_file.write(b"\n")
        with replace_file(path) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _, rows in _blocks(table.rows):
                file.write(rows.tobytes())
            # An array never has the paths of an earlier one beside it, even if this process is killed now.
            with user_error_if_unwritable(names):
                names.unlink(missing_ok=True)


def _write_parquet(path: Path, table: Table) -> None:
    arrow, parquet = _pyarrow()
    width = table.rows.shape[1]
    item = arrow.float16() if table.rows.dtype == np.float16 else arrow.float32()
    fields = [("id", arrow.int64()), ("path", arrow.string())]
    if table.boxes is not None:
        fields.append(("box", arrow.list_(arrow.float64(), 4)))
    fields.append(("descriptor", arrow.list_(item, width)))
    schema = arrow.schema(fields, metadata={MARK: WRITER})
    undecodable = 0
    # Statistics of the descriptors would take most of the time, and no reader uses them.
    statistics = ["id", "path"]
    with (
        replace_file(path) as file,
        parquet.ParquetWriter(
            file, schema, compression="none", use_dictionary=False, write_statistics=statistics
        ) as writer,
    ):
        for block, rows in _blocks(table.rows):
            paths = [_utf8(text) for text in table.paths[block]]
            undecodable += sum(map(str.__ne__, paths, table.paths[block]))
            columns = [np.arange(block.start, block.stop), paths]
            if table.boxes is not None:
                columns.append(list(table.boxes[block]))
            arrays = [arrow.array(column, kind) for column, (_, kind) in zip(columns, fields, strict=False)]
            arrays.append(arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), width))
            writer.write_table(arrow.table(arrays, schema=schema))
    if undecodable:
        log.warning(r"note: %d paths are not UTF-8: their other bytes are written as \xNN", undecodable)


def _blocks(rows: StoredRows) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of rows in order, (n, D) in the stored number type, and their indices."""
    for start in range(0, len(rows), BLOCK):
        block = slice(start, min(start + BLOCK, len(rows)))
        yield block, rows[block].astype(rows.dtype)


def _utf8(path: str) -> str:
    """Return a path with escapes for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _check_parquet(path: Path) -> None:
    """Check that a Parquet file does not exist, is empty, or was written by this program.

    Raises:
        UserError: it was not, or pyarrow is missing.
    """
    arrow, parquet = _pyarrow()
    if not path.exists() or not path.stat().st_size:
        return
    try:
        metadata = parquet.read_schema(path).metadata or {}
    except arrow.ArrowException:
        metadata = {}
    if metadata.get(MARK) != WRITER.encode():
        raise UserError(f"cannot replace {path}: it was not written by this program: name another file")


def _pyarrow() -> tuple[Any, ModuleType]:
    """Return pyarrow and its module of Parquet files.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"Parquet needs pyarrow: pip install pyarrow, or export to a {NPY} file") from error
    return pyarrow, parquet
