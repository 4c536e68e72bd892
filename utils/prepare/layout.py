"""Lays data sets out: from archives to the folders that the jobs read."""

import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.data.revisited import read_distractors
from utils.errors import BadFileError, UserError
from utils.file_names import DISTRACTORS_LIST, IMAGES_FOLDER
from utils.files.folders import replace_folder
from utils.files.writing import make_folder, replace_file
from utils.images.listing import images_below, report_thumbnails
from utils.prepare.archives import Limits, members, unpack
from utils.prepare.download import download
from utils.prepare.recipes import ALIKE, AUTHORS_WEIGHTS, WEIGHTS, Part
from utils.text import first_names

log = logging.getLogger(__name__)

DOWNLOADS = "downloads"


def sort_archives(archives: Sequence[Path], parts: Sequence[Part]) -> Mapping[Path, list[Path]]:
    """Find out, from the names of all their files, which folders each archive fills.

    Args:
        archives: files in any order.
        parts: what a data set consists of.

    Returns:
        The archives of each part's folder; one archive may fill several.

    Raises:
        UserError: an archive cannot be read, or is of none of the parts.
    """
    sorted_out: dict[Path, list[Path]] = {part.folder: [] for part in parts}
    for archive in archives:
        folders: set[Path] = set()
        for name in members(archive):
            folders |= {part.folder for part in parts if part.recognises(name)}
            if len(folders) == len(parts):
                break
        if not folders:
            raise UserError(f"{archive} is no archive of this data set: nothing in it is known by name")
        for folder in folders:
            sorted_out[folder].append(archive)
    return sorted_out


def fill_part(
    folder: Path,
    part: Part,
    given: Sequence[Path],
    datasets_dir: Path,
    insecure_hosts: Collection[str],
    limits: Limits,
) -> None:
    """Fills one folder of a data set, unless it is there: it appears when it is complete.

    Args:
        folder: the data set's.
        part: what fills the folder.
        given: the user's archives for it; downloaded where there are none.
        datasets_dir: where another set of the same images may lie.
        insecure_hosts: hosts whose invalid certificates are accepted.
        limits: what an archive may hold.

    Raises:
        UserError: archives are missing, hostile or damaged, or cannot be downloaded.
    """
    target = folder / part.folder
    downloads = folder / DOWNLOADS
    if _is_filled(target):
        there = part.count_needed(target)
        if there < part.needed:
            raise UserError(
                f"{target} has {there} of {part.needed} files: move it away to have it filled anew"
            )
        if given:
            log.warning("note: %s is there already, and %s was not unpacked", target, _names(given))
        else:
            _remove_downloads(downloads, part)
        return
    twin = datasets_dir / ALIKE.get(folder.name, folder.name) / part.folder
    if part.folder == Path(IMAGES_FOLDER) and not given and _is_filled(twin):
        with replace_folder(target) as draft:
            link_files({path.name: path for path in twin.iterdir()}, draft)
        return
    archives = list(given) or fetch(part, downloads, f"{target} comes from", insecure_hosts)
    with discarded_if_useless([] if given else archives), replace_folder(target) as draft:
        for archive in archives:
            unpack(archive, draft, part.placed, limits, nested=part.inner is not None)
        found = part.count_needed(draft)
        if found < max(part.needed, 1):
            raise UserError(
                f"{_names(archives)} have {found} of the {part.needed or 'many'} files that belong in "
                f"{target}: name all of its archives at once"
            )
    if not given:
        _remove_downloads(downloads, part)


def fill_weights(
    folder: Path, given: Sequence[Path], insecure_hosts: Collection[str], limits: Limits
) -> None:
    """Unpacks the authors' weights.tar into the weights folder; files that are there already stay.

    Raises:
        UserError: the archive cannot be downloaded, or lacks a file.
    """
    missing = [name for name in AUTHORS_WEIGHTS if not (folder / name).exists()]
    unpacked = folder / ".weights.tar.unpacked"
    if missing:
        archives = list(given) or fetch(WEIGHTS, folder / DOWNLOADS, "the weights come in", insecure_hosts)
        with discarded_if_useless([] if given else archives), replace_folder(unpacked) as draft:
            for archive in archives:
                unpack(archive, draft, WEIGHTS.placed, limits)
            lacking = [name for name in missing if not (draft / name).exists()]
            if lacking:
                raise UserError(
                    f"{archives[0]} is not the authors' weights.tar: it lacks {', '.join(lacking)}"
                )
        for name in missing:
            (unpacked / name).rename(folder / name)
    shutil.rmtree(unpacked, ignore_errors=True)
    if not given:
        _remove_downloads(folder / DOWNLOADS, WEIGHTS)


@contextmanager
def discarded_if_useless(downloaded: Sequence[Path]) -> Iterator[None]:
    """Removes downloads that turn out not to be what they should, so that the next run asks again.

    A server that has moved house answers with a page instead of an archive.
    """
    try:
        yield
    except BadFileError:
        for path in downloaded:
            path.unlink(missing_ok=True)
        raise


def fetch(part: Part, downloads: Path, what_for: str, insecure_hosts: Collection[str]) -> list[Path]:
    """Downloads a part's archives, or finds them downloaded.

    Raises:
        UserError: there is no server for them, or none answers.
    """
    if not part.archives:
        raise UserError(
            f"{what_for} an archive that cannot be downloaded ({part.ask}): name it with --archive"
        )
    how_else = "if you have the archive already, name it with --archive"
    files = {downloads / _file_name(mirrors[-1]): mirrors for mirrors in part.archives}
    return [fetch_file(path, mirrors, insecure_hosts, how_else) for path, mirrors in files.items()]


def fetch_file(path: Path, mirrors: Sequence[str], insecure_hosts: Collection[str], how_else: str) -> Path:
    """Downloads a file into a folder that is made for it, and is gone again where nothing came.

    Raises:
        UserError: no mirror has it.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    make_folder(path.parent)
    try:
        return download(mirrors, path, insecure_hosts=insecure_hosts, how_else=how_else)
    except UserError:
        for folder in made:
            remove_if_empty(folder)
        raise


def add_distractors(folder: Path, images: Path, target: Path) -> Path:
    """Makes a data set of another one and a tree of further images, by hard links where possible.

    It gets a list of the names of those images, one a line, beside the folder of images: where the labels
    say which images are in the database, it tells the distractors from what is there by accident.

    Args:
        folder: the data set.
        images: the tree.
        target: the new data set, which appears when it is complete; left alone if it is there.

    Returns:
        The new data set's folder.

    Raises:
        UserError: there are no images.
    """
    if target.exists():
        log.warning("note: %s is there already and was left as it is", target)
        return target
    contents = images_below(images)
    report_thumbnails(contents, images)
    found = [path for path in contents.images if path.is_file()]
    if len(found) < len(contents.images):
        unreadable = sorted({str(path) for path in contents.images} - {str(path) for path in found})
        log.warning(
            "note: left out %d pipes, devices or links to nothing (%s)",
            len(unreadable),
            first_names(unreadable),
        )
    if not found:
        raise UserError(f"no images in {images} or the folders in it")
    taken = {path.stem: path for path in (folder / IMAGES_FOLDER).iterdir()}
    files: dict[str, Path] = {}
    for path in found:
        # Images of one name lie in several folders of R1M, and one in no folder may be called as a query's.
        name = "_".join(path.relative_to(images).parts)
        if Path(name).stem in taken:
            raise UserError(f"{path} and {taken[Path(name).stem]} would have one name: rename one")
        files[name] = taken[Path(name).stem] = path
    with replace_folder(target) as draft:
        for path in folder.iterdir():
            if path.is_dir():
                (draft / path.name).mkdir()
                link_files({inner.name: inner for inner in path.iterdir()}, draft / path.name)
            else:
                link_files({path.name: path}, draft)
        link_files(files, draft / IMAGES_FOLDER)
        listed = [*read_distractors(folder), *(Path(name).stem for name in files)]
        with replace_file(draft / DISTRACTORS_LIST) as file:
            file.write("".join(f"{name}\n" for name in listed).encode(errors="surrogateescape"))
    return target


def link_files(files: Mapping[str, Path], folder: Path) -> None:
    """Puts files into a folder under new names, as hard links or, across file systems, as copies.

    Raises:
        UserError: a name is taken.
    """
    for name, path in files.items():
        try:
            os.link(path, folder / name)
        except FileExistsError as error:
            raise UserError(f"{path} cannot be added: there is a {name} already") from error
        except OSError:
            shutil.copy2(path, folder / name)


def remove_if_empty(folder: Path) -> None:
    """Removes a folder in which there is nothing; one with something in it stays."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _remove_downloads(downloads: Path, part: Part) -> None:
    """Removes a part's downloaded archives, which are no longer needed once they are unpacked."""
    for mirrors in part.archives:
        for suffix in ("", ".part", ".part.json"):
            (downloads / (_file_name(mirrors[-1]) + suffix)).unlink(missing_ok=True)
    remove_if_empty(downloads)


def _file_name(url: str) -> str:
    return url.rsplit("/", 1)[-1]
