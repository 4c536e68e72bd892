"""The authors' weight files: from their archive or, without it, each from another source."""

import hashlib
import logging
import shlex
import shutil
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from models.backbones.registry import AUTHORS_BACKBONE
from utils.errors import BadFileError, UserError
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN, WEIGHTS_DIR
from utils.files.folders import replace_folder
from utils.prepare.archives import Limits, unpack
from utils.prepare.download import DownloadError
from utils.prepare.layout import (
    DOWNLOADS,
    discard_if_invalid,
    fetch,
    file_name,
    remove_downloads,
)
from utils.prepare.recipes import (
    ATTENTION_HEAD,
    ATTENTION_HEAD_SHA256,
    AUTHORS_WEIGHTS,
    IMPORTED_FEATURES,
    IMPORTED_FEATURES_DIGITS,
    WEIGHTS,
    Part,
)
from utils.weights.caffe_conversion import convert_features

log = logging.getLogger(__name__)

STATE_DICT_SUFFIX = ".pth"
"""Suffix of a file of the user that is imported features, and no archive."""

DIGESTS = ("sha256", "sha1", "md5")
"""Checksums whose first digits a file name can hold."""


def fill_weights(
    folder: Path, given: Sequence[Path], insecure_hosts: Collection[str], limits: Limits
) -> None:
    """Get the authors' four files, each from the first source that provides it; existing files are kept.

    The sources are the files of the user, the authors' weights.tar, which is downloaded if the user gives no
    archive, and other servers of the attention head and of the backbone. No other server has the whitening.

    Args:
        folder: the weights folder.
        given: files of the user: archives, and .pth files of imported features.
        insecure_hosts: hosts whose certificates are not checked.
        limits: the maximum that an archive can unpack to.

    Raises:
        UserError: a file of the user lacks what it should hold, or a file cannot be written.
    """
    features = [path for path in given if path.suffix == STATE_DICT_SUFFIX]
    archives = [path for path in given if path not in features]
    for path in features:
        if (folder / AUTHORS_BACKBONE).exists():
            log.warning("note: %s exists already, and %s was not converted", folder / AUTHORS_BACKBONE, path)
        else:
            convert_features(path, folder / AUTHORS_BACKBONE)
    if archives:
        unpack_weights(folder, archives, limits)
        return
    fetch_archive(folder, insecure_hosts, limits)
    fetch_attention_head(folder, insecure_hosts)
    fetch_backbone(folder, insecure_hosts)


def check_weights(folder: Path) -> None:
    """Check that all four files are there.

    Raises:
        UserError: files are missing; the message names the step that makes or gets each of them.
    """
    missing = missing_weights(folder)
    quoted = shlex.quote(str(folder))
    folders = "" if folder == WEIGHTS_DIR else f" --weights-dir {quoted} --output {quoted}"
    archive, features = (file_name(part.archives[0][0]) for part in (WEIGHTS, IMPORTED_FEATURES))
    steps = {
        f"--archive takes it from a copy of {archive} or {features}": [AUTHORS_BACKBONE],
        f"python Training_ImageNet.py{folders} trains it, with the backbone of {archive}": [
            ATTENTION_WEIGHTS
        ],
        f"python LearningPCA_landmark.py{folders} learns the whitening": [PCA_COMPONENTS, PCA_MEAN],
    }
    lacking = [
        f"{' and '.join(name for name in names if name in missing)} ({step})"
        for step, names in steps.items()
        if not missing.isdisjoint(names)
    ]
    if lacking:
        raise UserError(f"{folder} lacks {', '.join(lacking)}")


def missing_weights(folder: Path) -> set[str]:
    """Return the names of the authors' files that are not in the weights folder."""
    return {name for name in AUTHORS_WEIGHTS if not (folder / name).exists()}


def unpack_weights(folder: Path, archives: Sequence[Path], limits: Limits) -> None:
    """Unpack the missing files of archives into the weights folder.

    Raises:
        UserError: an archive cannot be read, or the archives lack a missing file.
    """
    missing = sorted(missing_weights(folder))
    unpacked = folder / ".weights.tar.unpacked"
    if missing:
        with replace_folder(unpacked) as draft:
            for archive in archives:
                unpack(archive, draft, WEIGHTS.target_path, limits)
            lacking = [name for name in missing if not (draft / name).exists()]
            if lacking:
                raise BadFileError(
                    f"{archives[0]} is not the authors' weights.tar: it lacks {', '.join(lacking)}"
                )
        for name in missing:
            (unpacked / name).rename(folder / name)
    shutil.rmtree(unpacked, ignore_errors=True)


def fetch_archive(folder: Path, insecure_hosts: Collection[str], limits: Limits) -> None:
    """Download weights.tar and unpack it, unless no file is missing; log a note if it cannot be had.

    Raises:
        UserError: a file cannot be written.
    """
    if missing_weights(folder):
        try:
            archives = fetch(WEIGHTS, folder / DOWNLOADS, "the weights come in", insecure_hosts)
            with discard_if_invalid(archives):
                unpack_weights(folder, archives, limits)
        except DownloadError:
            return  # the reasons are in the log
        except BadFileError as error:
            log.warning("note: %s", error)
            return
    remove_downloads(folder / DOWNLOADS, WEIGHTS)


def fetch_attention_head(folder: Path, insecure_hosts: Collection[str]) -> None:
    """Download the attention head, unless it is there; log a note if it cannot be had.

    Raises:
        UserError: it cannot be written.
    """
    target = folder / ATTENTION_WEIGHTS
    if not target.exists():
        path = _fetch_checked(folder, ATTENTION_HEAD, ATTENTION_HEAD_SHA256, insecure_hosts)
        if path is None:
            return
        path.rename(target)
    remove_downloads(folder / DOWNLOADS, ATTENTION_HEAD)


def fetch_backbone(folder: Path, insecure_hosts: Collection[str]) -> None:
    """Download the imported features and convert them, unless the backbone is there; or log a note.

    Raises:
        UserError: a file cannot be written, or the downloaded file holds another network.
    """
    target = folder / AUTHORS_BACKBONE
    if not target.exists():
        path = _fetch_checked(folder, IMPORTED_FEATURES, IMPORTED_FEATURES_DIGITS, insecure_hosts)
        if path is None:
            return
        convert_features(path, target)
    remove_downloads(folder / DOWNLOADS, IMPORTED_FEATURES)


def _fetch_checked(folder: Path, part: Part, digits: str, insecure_hosts: Collection[str]) -> Path | None:
    """Return a downloaded file with the right checksum; None, after a note in the log, if there is none."""
    try:
        (path,) = fetch(part, folder / DOWNLOADS, "the weights come in", insecure_hosts)
        with discard_if_invalid([path]):
            check_digest(path, digits)
    except DownloadError:
        return None  # the reasons are in the log
    except BadFileError as error:
        log.warning("note: %s", error)
        return None
    return path


def check_digest(path: Path, digits: str) -> None:
    """Check that the SHA-256, SHA-1 or MD5 checksum of a file starts with some digits.

    Raises:
        BadFileError: none does.
    """
    for kind in DIGESTS:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.new, kind, usedforsecurity=False))
        if digest.hexdigest().startswith(digits):
            return
    raise BadFileError(f"{path} is not the file that was published: no checksum of it starts with {digits}")
