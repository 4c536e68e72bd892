"""Checked reading of tables in CSV whose first line names the columns."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.errors import BadFileError
from utils.files.reading import read_text
from utils.text import shorten

LARGEST_CELL = 1 << 30
"""Largest number of characters of a cell."""


def read_table(
    path: Path, columns: Sequence[str], further_columns: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line that is not empty and its cells by column, without outer blanks.

    Columns may have any order and any case, and there may be others. Missing cells are empty.

    Args:
        path: the table.
        columns: columns that it must have, in lower case.
        further_columns: columns of which it must have all or none.

    Raises:
        UserError: the table is unreadable, a column is missing or named twice, or a line has too many cells.
    """
    csv.field_size_limit(LARGEST_CELL)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True, skipinitialspace=True)
    names: list[str] = []
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            raise BadFileError(f"{path}, line {reader.line_num}: {error}") from error
        if not any(cells):
            continue
        if not names:
            names = [cell.lower() for cell in cells]
            expected = {*columns, *(further_columns if set(further_columns) & set(names) else ())}
            if not expected <= set(names) or len(set(names)) < len(names):
                forms = dict.fromkeys([",".join(columns), ",".join((*columns, *further_columns))])
                raise BadFileError(
                    f"{path}, line {reader.line_num}: expected the columns {' or '.join(forms)}, "
                    f"found {shorten(','.join(cells))}"
                )
            continue
        if len(cells) > len(names):
            raise BadFileError(
                f"{path}, line {reader.line_num}: has {len(cells)} values for {len(names)} columns"
            )
        cells += [""] * (len(names) - len(cells))
        yield reader.line_num, dict(zip(names, cells, strict=True))
