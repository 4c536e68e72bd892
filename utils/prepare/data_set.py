"""Preparation of a data set from its recipe: parts, labels and distractors."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.data.imagenet import FOLDER as IMAGENET
from utils.data.revisited_labels import as_json, read_pickled_labels
from utils.file_names import IMAGES_FOLDER
from utils.files.writing import replace_file
from utils.images.listing import FolderContents, images_in, is_thumbnail
from utils.prepare.archives import Limits
from utils.prepare.distractors import add_distractors
from utils.prepare.imagenet_labels import copy_labels_beside, write_validation_list
from utils.prepare.layout import discard_if_invalid, fetch_file, fill_part, sort_archives
from utils.prepare.recipes import R1M, RECIPES, REVISITED_LABELS, VALIDATION_LABELS, WITH_R1M

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Folder of the data sets, and the archives that they are made from."""

    datasets_dir: Path
    archives: Sequence[Path]
    """Archives of the user; parts without one are downloaded."""
    insecure_hosts: Collection[str]
    """Hosts whose invalid certificates are accepted."""
    limits: Limits


def prepare_data_set(name: str, source: Source) -> Path:
    """Prepare a data set of RECIPES, and return its folder.

    Each part of the data set is a folder, unpacked from its archives and moved into place when complete.

    Raises:
        UserError: a download fails, an archive is unreadable, or a file cannot be written. The next run skips
            the parts that are finished.
    """
    folder = source.datasets_dir / name
    if name == R1M and r1m_folders(folder) == [folder / IMAGES_FOLDER]:
        log.warning("note: %s was not unpacked by this program and is used as it is", folder / IMAGES_FOLDER)
        return folder
    given = sort_archives(source.archives, RECIPES[name])
    if name == IMAGENET and not given[VALIDATION_LABELS]:
        copy_labels_beside(folder, source.archives)
    for part in RECIPES[name]:
        hosts, limits = source.insecure_hosts, source.limits
        fill_part(folder, part, given[part.folder], source.datasets_dir, hosts, limits)
    if name == IMAGENET:
        write_validation_list(folder)
    if name in REVISITED_LABELS:
        fetch_revisited_labels(folder, *REVISITED_LABELS[name], source.insecure_hosts)
    log.info("%s is in %s", name, folder)
    return folder


def prepare_with_r1m(name: str, source: Source) -> Path:
    """Prepare a data set of WITH_R1M, from its images and the distractors of R1M, and return its folder.

    Both are prepared first, unless they are. Archives with the names of those of R1M belong to R1M.

    Raises:
        UserError: as for `prepare_data_set`.
    """
    target = source.datasets_dir / name
    if target.exists():
        log.warning("note: %s exists already and was not changed", target)
        return target
    of_r1m = [path for path in source.archives if any(part.is_download(path) for part in RECIPES[R1M])]
    others = [path for path in source.archives if path not in of_r1m]
    folder = prepare_data_set(WITH_R1M[name], source._replace(archives=others))
    distractors = prepare_data_set(R1M, source._replace(archives=of_r1m))
    add_distractors(folder, r1m_folders(distractors), target)
    log.info("%s is in %s", name, target)
    return target


def r1m_folders(folder: Path) -> list[Path]:
    """Return the folders of the images of R1M: one per archive, or jpg/ if it was unpacked by other means.

    Folders of thumbnails, which network disks add, and files beside the folders of archives are ignored.

    The names of images are their paths in these folders, which are those in the archives.

    Args:
        folder: the folder of R1M.
    """
    images = folder / IMAGES_FOLDER
    of_archives = [folder / part.folder for part in RECIPES[R1M]]
    contents = images_in(images) if images.is_dir() else FolderContents.empty()
    folders = {path for path in contents.folders if not is_thumbnail(path.name)}
    is_foreign = (contents.images or folders) and folders.isdisjoint(of_archives)
    return [images] if is_foreign else of_archives


def fetch_revisited_labels(
    folder: Path, file_name: str, mirrors: Sequence[str], insecure_hosts: Collection[str]
) -> None:
    """Download the labels of the revisited protocol, a pickle, and write them as JSON beside it.

    Args:
        folder: folder of the data set.
        file_name: name of the pickle.
        mirrors: addresses of the pickle.
        insecure_hosts: hosts whose invalid certificates are accepted.

    Raises:
        UserError: the labels cannot be downloaded or written, or the file is no pickle of labels.
    """
    pickled = folder / file_name
    instructions = f"put it there yourself, as {pickled}"
    downloaded = [] if pickled.exists() else [pickled]
    fetch_file(pickled, mirrors, insecure_hosts, instructions)
    with discard_if_invalid(downloaded):
        labels = as_json(read_pickled_labels(pickled))
    with replace_file(pickled.with_suffix(".json")) as file:
        file.write(labels)
