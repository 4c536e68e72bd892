"""Layout of data sets: from archives to the folders that the scripts read."""

import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

from utils.errors import BadFileError, UserError
from utils.file_names import IMAGES_FOLDER
from utils.files.folders import replace_folder
from utils.files.writing import make_folder
from utils.prepare.archives import Limits, members, unpack
from utils.prepare.download import download
from utils.prepare.recipes import SAME_IMAGES, Part

log = logging.getLogger(__name__)

DOWNLOADS = "downloads"


def sort_archives(archives: Sequence[Path], parts: Sequence[Part]) -> Mapping[Path, list[Path]]:
    """Sort archives by the folders that they fill, from their names or the names of their files.

    Args:
        archives: archives in any order.
        parts: the parts of a data set.

    Returns:
        Folder of each part to its archives; an archive can be in several lists.

    Raises:
        UserError: an archive cannot be read, or belongs to no part.
    """
    archives_of: dict[Path, list[Path]] = {part.folder: [] for part in parts}
    for archive in archives:
        folders = {part.folder for part in parts if part.is_named and part.is_download(archive)}
        by_contents = [] if folders else [part for part in parts if not part.is_named]
        for name in members(archive) if by_contents else ():
            folders |= {part.folder for part in by_contents if part.recognises(name)}
            if len(folders) == len(by_contents):
                break
        if not folders:
            reason = "it has no file of a known name" if by_contents else "it has another name"
            raise UserError(f"{archive} is not an archive of this data set: {reason}")
        for folder in folders:
            archives_of[folder].append(archive)
    return archives_of


def fill_part(
    folder: Path,
    part: Part,
    given: Sequence[Path],
    datasets_dir: Path,
    insecure_hosts: Collection[str],
    limits: Limits,
) -> None:
    """Fill one folder of a data set, unless it is filled; the folder appears when it is complete.

    Args:
        folder: the folder of the data set.
        part: the part to fill.
        given: the archives of the user for this part; archives are downloaded if there are none.
        datasets_dir: the folder of the data sets, which may have another set with the same images.
        insecure_hosts: hosts whose certificates are not checked.
        limits: the maximum that an archive can unpack to.

    Raises:
        UserError: archives are missing, not valid or unsafe, or cannot be downloaded.
    """
    target = folder / part.folder
    downloads = folder / DOWNLOADS
    if _is_filled(target):
        count = part.count_needed(target)
        if count < part.needed:
            raise UserError(f"{target} has {count} of {part.needed} files: move it away to fill it again")
        if given:
            log.warning("note: %s exists already, and %s was not unpacked", target, _names(given))
        else:
            remove_downloads(downloads, part)
        return
    twin = datasets_dir / SAME_IMAGES.get(folder.name, folder.name) / part.folder
    if part.folder == Path(IMAGES_FOLDER) and not given and _is_filled(twin):
        with replace_folder(target) as draft:
            link_files({path.name: path for path in twin.iterdir()}, draft)
        return
    archives = list(given) or fetch(part, downloads, f"{target} comes from", insecure_hosts)
    with discard_if_invalid([] if given else archives), replace_folder(target) as draft:
        for archive in archives:
            unpack(archive, draft, part.target_path, limits, nested=part.inner is not None)
        count = part.count_needed(draft)
        if count < max(part.needed, 1):
            raise UserError(
                f"{_names(archives)} have {count} of the {part.needed or 'many'} files of {target}: "
                "name all of its archives at once"
            )
    if not given:
        remove_downloads(downloads, part)


@contextmanager
def discard_if_invalid(downloaded: Sequence[Path]) -> Iterator[None]:
    """Delete downloads if the block finds them not valid, so that the next run downloads them again.

    For example, a server may have answered with an HTML page instead of an archive.
    """
    try:
        yield
    except BadFileError:
        for path in downloaded:
            path.unlink(missing_ok=True)
        raise


def fetch(part: Part, downloads: Path, purpose: str, insecure_hosts: Collection[str]) -> list[Path]:
    """Download the archives of a part, unless they are downloaded.

    Args:
        part: the part.
        downloads: the folder to download to.
        purpose: the start of the error message about archives that cannot be downloaded.
        insecure_hosts: hosts whose certificates are not checked.

    Returns:
        The downloaded archives.

    Raises:
        UserError: the archives have no server, or no mirror provides one.
    """
    if not part.archives:
        raise UserError(
            f"{purpose} an archive that cannot be downloaded ({part.ask}): name it with --archive"
        )
    instructions = "if you have the archive already, name it with --archive"
    files = {downloads / file_name(mirrors[-1]): mirrors for mirrors in part.archives}
    return [fetch_file(path, mirrors, insecure_hosts, instructions) for path, mirrors in files.items()]


def fetch_file(
    path: Path, mirrors: Sequence[str], insecure_hosts: Collection[str], instructions: str
) -> Path:
    """Download a file, unless it exists; its folder is created, and removed again if the download fails.

    Raises:
        UserError: no mirror provides the file.
    """
    created = [folder for folder in path.parents if not folder.exists()]
    make_folder(path.parent)
    try:
        return download(mirrors, path, insecure_hosts=insecure_hosts, instructions=instructions)
    except UserError:
        for folder in created:
            remove_if_empty(folder)
        raise


def link_files(files: Mapping[str, Path], folder: Path) -> None:
    """Add files to a folder under new names, as hard links or, across file systems, as copies.

    Of a symbolic link, the file that it points to is added: a relative link would be broken in the folder.

    Raises:
        UserError: the folder has a file of this name.
    """
    for name, path in files.items():
        try:
            os.link(path.resolve(), folder / name)
        except FileExistsError as error:
            raise UserError(f"{path} cannot be added: {folder / name} exists already") from error
        except OSError:
            shutil.copy2(path, folder / name)


def joined_name(path: PurePath) -> str:
    """Return the name in one folder of a file from a tree of folders: its path, joined by underscores.

    Dots in the folders of a file without suffix become underscores, too, since a suffix would begin there.

    Args:
        path: the path of the file in the tree.
    """
    name = "_".join(path.parts)
    return name if path.suffix else name.replace(".", "_")


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def remove_downloads(downloads: Path, part: Part) -> None:
    """Remove the downloaded archives of a part, which are not needed after unpacking."""
    for mirrors in part.archives:
        for suffix in ("", ".part", ".part.json"):
            (downloads / (file_name(mirrors[-1]) + suffix)).unlink(missing_ok=True)
    remove_if_empty(downloads)


def file_name(url: str) -> str:
    """Return the last part of a URL."""
    return url.rsplit("/", 1)[-1]
