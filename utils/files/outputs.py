"""Checks of the output files that a user names. Only files that this program wrote are replaced."""

import os
from pathlib import Path

from utils.errors import UserError
from utils.files.regular import open_regular
from utils.files.writing import check_writable, is_special


def check_output_file(path: Path, *begins: bytes) -> None:
    """Check, before any work, that a file can be written and would not replace a file of the user.

    Args:
        path: the file; devices and pipes are not checked.
        begins: see `check_replaceable`.

    Raises:
        UserError: the file cannot be written, or would replace a folder or a file of the user.
    """
    if not is_special(path):
        check_writable(Path(os.path.realpath(path)).parent)
        check_replaceable(path, *begins)


def check_replaceable(path: Path, *begins: bytes) -> None:
    """Check that a file does not exist, is empty, or was written by this program.

    Args:
        path: the file.
        begins: first bytes of the files of this kind that this program writes, one per form of it.

    Raises:
        UserError: `path` is a folder or a file of the user.
    """
    try:
        with open_regular(path) as file:
            beginning = file.read(max(map(len, begins)))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot replace {path}: {error.strerror or error}: name another file") from error
    if beginning and not beginning.startswith(begins):
        raise UserError(f"cannot replace {path}: it was not written by this program: name another file")
