"""Comparison of the settings of a saved state with the settings of the current run."""

from collections.abc import Mapping
from pathlib import Path

from utils.errors import UserError

METHOD = "method"
"""Name of the setting that holds the version of the method."""

METHOD_VERSION = 2
"""Version of the method, increased if the same options and weights give other descriptors.

Version 2 resizes exactly as OpenCV does, counts the regions of images at exact ties in float64 and gives
regions without a cell no context.
"""

BACKBONE_DIGEST = "backbone_digest"
"""Name of the setting that holds the digest of the weights given by --backbone-weights; None if not given."""


def check_same_settings(
    path: Path | str, saved: Mapping[str, object], settings: Mapping[str, object], advice: str | None = None
) -> None:
    """Check that a saved state has the settings of the current run.

    Args:
        path: file or other location of the saved state, for the error message.
        saved: settings of the saved state; keys that are not in `settings` are ignored.
        settings: settings of the current run.
        advice: what to do if a setting differs, for the error message.

    Raises:
        UserError: a setting differs. The message names each differing setting with both values.
    """
    if METHOD in settings and saved.get(METHOD) != settings[METHOD]:
        raise UserError(
            f"{path} was saved by another version of this program, whose descriptors differ "
            f"(method {saved.get(METHOD)}, now {settings[METHOD]}): delete it and create it again"
        )
    differing = [name for name in settings if saved.get(name) != settings[name]]
    if differing:
        differences = ", ".join(f"{name} {saved.get(name)} (now {settings[name]})" for name in differing)
        message = f"{path} was saved with other settings: {differences}"
        raise UserError(message if advice is None else f"{message}; {advice}")
