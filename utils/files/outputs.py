"""Files that a user names for output: only files that this program wrote are replaced."""

import os
from pathlib import Path

from utils.errors import UserError
from utils.files.regular import open_regular
from utils.files.writing import check_writable, is_special


def check_output_file(path: Path, begin: bytes) -> None:
    """Check, before any work, that a file can be written and replaces no file of the user.

    Args:
        path: the file; devices and pipes are written as they are.
        begin: see `check_replaceable`.

    Raises:
        UserError: it cannot be written, or would replace something else.
    """
    if not is_special(path):
        check_writable(Path(os.path.realpath(path)).parent)
        check_replaceable(path, begin)


def check_replaceable(path: Path, begin: bytes) -> None:
    """Check that a file does not exist, is empty, or was written by this program.

    Args:
        path: the file.
        begin: first bytes of all files of its kind that this program writes.

    Raises:
        UserError: it is a folder, or another file, such as an image.
    """
    try:
        with open_regular(path) as file:
            beginning = file.read(len(begin))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot replace {path}: {error.strerror or error}: name another file") from error
    if beginning not in (b"", begin):
        raise UserError(f"cannot replace {path}: it was not written by this program: name another file")
