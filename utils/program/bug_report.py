"""The message that follows the traceback of a bug in the program."""

import platform
import tomllib
from contextlib import suppress
from importlib import metadata
from pathlib import Path

ISSUE_TRACKER = "the project's issue tracker"
"""Address for bug reports, to be set where the project is published."""

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def bug_line() -> str:
    """Return a line that asks for a bug report and names the versions to include in it."""
    return (
        "this is a bug of the program, not of your data or options: please report it, with the lines above, "
        f"to {ISSUE_TRACKER} ({project_version()}, Python {platform.python_version()}, "
        f"torch {package_version('torch')}, {platform.platform()})"
    )


def project_version() -> str:
    """Return the project's name and version."""
    with suppress(OSError, ValueError, KeyError):
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        return f"{project['name']} {project['version']}"
    return "version unknown"


def package_version(name: str) -> str:
    """Return the version of an installed package, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
