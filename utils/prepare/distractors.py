"""Distractors: from a data set and a folder of images to a larger data set, such as Oxford105k."""

import logging
from collections.abc import Sequence
from pathlib import Path

from utils.data.revisited import read_distractors
from utils.errors import UserError
from utils.file_names import DISTRACTORS_LIST, IMAGES_FOLDER
from utils.files.folders import replace_folder
from utils.files.writing import replace_file
from utils.images.listing import images_below, report_left_out
from utils.prepare.layout import joined_name, link_files
from utils.text import first_names

log = logging.getLogger(__name__)


def add_distractors(folder: Path, sources: Sequence[Path], target: Path) -> Path:
    """Create a data set from another one and folders of distractors, by hard links if possible.

    The new data set has a list of the names of the distractors, one per line. In revisited sets, the list
    distinguishes them from images that are not part of the data set. Folders in the folders of the data set,
    such as thumbnails of network disks, are left out.

    Args:
        folder: the folder of the data set.
        sources: the folders of the distractors, each searched with all folders below it.
        target: the folder of the new data set, which appears when it is complete; unchanged if it exists.

    Returns:
        The folder of the new data set.

    Raises:
        UserError: there are no distractors, or one has the name of another image.
    """
    if target.exists():
        log.warning("note: %s exists already and was not changed", target)
        return target
    named = {path.stem: path for path in (folder / IMAGES_FOLDER).iterdir()}
    files: dict[str, Path] = {}
    for source in sources:
        for path in _images_below(source):
            # R1M has images of the same name in several folders.
            name = joined_name(path.relative_to(source))
            if Path(name).stem in named:
                raise UserError(f"{path} and {named[Path(name).stem]} would have the same name: rename one")
            files[name] = named[Path(name).stem] = path
    with replace_folder(target) as draft:
        for path in folder.iterdir():
            if path.is_dir():
                (draft / path.name).mkdir()
                inner = {file.name: file for file in path.iterdir() if file.is_file()}
                link_files(inner, draft / path.name)
            elif path.is_file():
                link_files({path.name: path}, draft)
        link_files(files, draft / IMAGES_FOLDER)
        listed = [*read_distractors(folder), *(Path(name).stem for name in files)]
        with replace_file(draft / DISTRACTORS_LIST) as file:
            file.write("".join(f"{name}\n" for name in listed).encode(errors="surrogateescape"))
    return target


def _images_below(folder: Path) -> list[Path]:
    """Return the images below a folder that are regular files.

    Raises:
        UserError: there are none.
    """
    contents = images_below(folder)
    report_left_out(contents, folder)
    images = [path for path in contents.images if path.is_file()]
    if len(images) < len(contents.images):
        unreadable = sorted({str(path) for path in contents.images} - {str(path) for path in images})
        log.warning(
            "note: left out %d pipes, devices or broken links (%s)",
            len(unreadable),
            first_names(unreadable),
        )
    if not images:
        raise UserError(f"no images in {folder} or the folders in it")
    return images
