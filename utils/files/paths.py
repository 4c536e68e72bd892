"""Conversion of the paths that users write."""

from pathlib import Path

from utils.errors import UserError


def optional_path(text: str | Path | None, option: str) -> Path | None:
    """Return `user_path` of a text, or None if there is none."""
    return None if text is None else user_path(text, option)


def user_path(text: str | Path, option: str = "a path") -> Path:
    """Return a path in which `~` or `~name` at the beginning is replaced with the user's home folder.

    A path such as `~backup.jpg`, for which there is no such user, stays as it is.

    Args:
        text: the path.
        option: name of the option or argument, for errors.

    Raises:
        UserError: the text is empty or holds a null character.
    """
    if text == "":
        raise UserError(f"{option} is empty: name a file or a folder")
    if "\0" in str(text):
        raise UserError(f"{option} {str(text)!r} holds a null character: no file has such a name")
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user, or the user has no home folder
        return path
