"""Paths as users write them."""

from pathlib import Path

from utils.errors import UserError


def user_path(text: str | Path, option: str = "a path") -> Path:
    """Return a path in which `~` or `~name` at the beginning stands for a user's home folder.

    A name for which there is no such user, as `~backup.jpg`, is a name like any other.

    Args:
        text: the path.
        option: what the user gave it as, for an error.

    Raises:
        UserError: the text is empty, which would mean the current folder, or no name of a file.
    """
    if text == "":
        raise UserError(f"{option} is empty: name a file or a folder")
    if "\0" in str(text):
        raise UserError(f"{option} {str(text)!r} holds a null character: no file has such a name")
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # no such user, or none who has a home
        return path
