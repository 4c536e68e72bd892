"""INRIA Holidays: images whose names group them, such as 100000.jpg, 100001.jpg, 100002.jpg.

Jégou et al., "Hamming Embedding and Weak Geometric Consistency for Large Scale Image Search", ECCV 2008.
"""

import re
from pathlib import Path

from utils.data.oxford_paris import read_images
from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER
from utils.images.listing import images_in
from utils.text import first_names

NAME = re.compile("(1[0-4][0-9]{2})[0-9]{2}")
"""Name of an image: the number of its group, from 1000 to 1499, and its number in the group."""

QUERY_NUMBER = "00"


def has_holidays_images(folder: Path) -> bool:
    """Return True if all images in jpg/, or in the folder itself without jpg/, have names of Holidays."""
    images = images_in(folder / _images_folder(folder)).images
    names = [path.stem for path in images]
    return all(map(NAME.fullmatch, names)) and any(name.endswith(QUERY_NUMBER) for name in names)


def read_holidays(folder: Path) -> RetrievalDataset:
    """Read the file names of Holidays without opening an image.

    Each image whose name ends in 00 is a query: the complete image. The other images of its group are good.
    The query itself is in the database, too, and is junk, as the published evaluation ignores it. The average
    precision of that evaluation is defined as for Oxford.

    Raises:
        UserError: there are no images, or a group lacks its query.
    """
    images = read_images(folder, _images_folder(folder))
    groups: dict[str, list[str]] = {}
    for name in images:
        match = NAME.fullmatch(name)
        if match is None:
            raise UserError(f"{images[name]} has no name of Holidays, such as 100000.jpg: move it away")
        groups.setdefault(match[1], []).append(name)
    queries = []
    missing = []
    for group, names in groups.items():
        query = group + QUERY_NUMBER
        if query not in images:
            missing.append(query)
        good = frozenset(names) - {query}
        queries.append(Query(query, query, None, good, frozenset(), frozenset([query])))
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} queries of its images ({first_names(missing)}): add them, or "
            "move the images with the same first four digits away"
        )
    return RetrievalDataset(folder, images, queries, {query.image: images[query.image] for query in queries})


def _images_folder(folder: Path) -> str:
    """Return the name of the folder of the images in the folder of the data set."""
    return IMAGES_FOLDER if (folder / IMAGES_FOLDER).is_dir() else "."
