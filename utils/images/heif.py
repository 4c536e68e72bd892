"""HEIC and HEIF images, which Pillow reads only with the package pillow-heif."""

import re
from functools import cache
from importlib.util import find_spec

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})

HEIF_BYTES = re.compile(
    # The first brand of the file is one of HEIC or, if it is the general one, a later brand is one of HEIC.
    rb".{4}ftyp(?:m[is]f1.{4}(?:.{4})*?)?(?:hei[cxms]|hev[cxms])",
    re.DOTALL,
)
"""First bytes of HEIC files. AVIF files have the same container, with other brands."""

INSTRUCTIONS = "pip install pillow-heif"


def is_heif_readable() -> bool:
    """Return True if the package pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def add_heif_to_pillow() -> None:
    """Make Pillow open HEIC files.

    Raises:
        ValueError: the package pillow-heif is not installed.
    """
    if not is_heif_readable():
        raise ValueError(f"HEIC images need the package pillow-heif: {INSTRUCTIONS}")
    _register()


@cache
def _register() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
