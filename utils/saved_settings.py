"""The settings that a saved state was made with, against those that it is to go on with."""

from collections.abc import Mapping
from pathlib import Path

from utils.errors import UserError

METHOD = "method"
"""Name of the setting that counts the versions of the method itself."""


def check_same_settings(path: Path, saved: Mapping[str, object], settings: Mapping[str, object]) -> None:
    """Checks that a state can be gone on from.

    Args:
        path: the state's file, for the error.
        saved: what it was made with; more than `settings` does not matter.
        settings: what it is to go on with.

    Raises:
        UserError: a setting differs; the text names each with both values.
    """
    if METHOD in settings and saved.get(METHOD) != settings[METHOD]:
        raise UserError(
            f"{path} was saved by another version of this program, whose descriptors differ "
            f"(method {saved.get(METHOD)}, now {settings[METHOD]}): delete it and make it anew"
        )
    differing = [name for name in settings if saved.get(name) != settings[name]]
    if differing:
        told = ", ".join(f"{name} {saved.get(name)} (now {settings[name]})" for name in differing)
        raise UserError(f"{path} was saved with other settings: {told}")
