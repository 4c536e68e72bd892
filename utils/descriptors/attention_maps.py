"""Attention maps of indexed images, kept in a store beside the descriptors: a few hundred bytes per image.

The page of `Search_Images.py serve` draws heat maps from them without the network. A row of the store has the
height and width of a map, its least value, the difference to its greatest value, its values row by row,
scaled to 0..1, and zeros up to a width that fits all images. Scaled values are precise to three digits in
float16, also if all weights are nearly equal.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.poolings.registry import need_attention
from models.retrieval_network import RetrievalNetwork
from utils.descriptors.rows import StoredRows
from utils.descriptors.store import LARGEST_STORE_RATIO, SAME_OPTIONS, DescriptorStore, open_store
from utils.errors import UserError
from utils.options.shared import DescriptorOptions, StorePrecision

log = logging.getLogger(__name__)

PRECISION: StorePrecision = "float16"

BEFORE_VALUES = 4
"""Number of values of a row before the values of the map."""


class StoredMaps:
    """The attention maps of N indexed images.

    Args:
        rows: rows of the images that have a map.
        numbers: (N,) int64, number of the row of each image; -1 for an image without a map.
    """

    def __init__(self, rows: StoredRows, numbers: np.ndarray) -> None:
        self._rows = rows
        self._numbers = numbers

    def __getitem__(self, index: int) -> np.ndarray | None:
        """Return the map of an image, (h, w) float32, or None if it has none."""
        number = self._numbers[index]
        return None if number < 0 else decode_map(self._rows[np.array([number])][0])


def have_maps(options: DescriptorOptions) -> bool:
    """Return whether the pass that describes images by some options also gives their attention maps."""
    return need_attention(options.poolings) and options.scales == (1.0,)


def open_map_store(
    folder: Path, settings: Mapping[str, object], tidy: bool = False, advice: str = SAME_OPTIONS
) -> DescriptorStore:
    """Open the store of the maps; create it if it is missing.

    Args:
        folder: the folder of the store.
        settings: settings of the descriptors.
        tidy: delete files of killed processes.
        advice: as for `open_store`.

    Raises:
        UserError: it has other settings, is not valid, or cannot be written.
    """
    return open_store(folder, settings, precision=PRECISION, tidy=tidy, advice=advice)


def read_maps(folder: Path, settings: Mapping[str, object], keys: Sequence[str]) -> StoredMaps | None:
    """Read the maps of images; None, with a note if there is a reason, if there are none.

    Args:
        folder: the folder of the store.
        settings: settings of the descriptors.
        keys: keys of the images.
    """
    if not folder.is_dir():
        return None
    try:
        store = open_map_store(folder, settings)
    except UserError as error:
        log.warning("note: heat maps are computed anew: %s", error)
        return None
    present = [key in store for key in keys]
    numbers = np.where(present, np.cumsum(present) - 1, -1)
    return StoredMaps(store.rows([key for key in keys if key in store]), numbers)


def compact_maps(store: DescriptorStore, keys: Sequence[str]) -> None:
    """Remove the maps of images that are no longer indexed, if most maps are of such images.

    Args:
        store: the store of the maps.
        keys: keys of the indexed images.

    Raises:
        UserError: the store cannot be written.
    """
    store.read()
    if store.stored > LARGEST_STORE_RATIO * len(keys):
        store.compact([key for key in keys if key in store])


def map_width(longer_side: int, stride: int) -> int:
    """Return the number of values per row of a store for images of a longer side S, in pixels."""
    return BEFORE_VALUES + (-(-longer_side // stride)) ** 2


def descriptors_and_maps(images: Tensor, network: RetrievalNetwork, width: int) -> Tensor:
    """Return the descriptors of images, each followed by a row of the store of maps, (N, P D + width).

    Args:
        images: (N, 3, H, W) of one size, prepared by `backbone.prepare`.
        network: network with attention.
        width: number of values per row; a map that does not fit is left out.
    """
    descriptors, maps = network.describe_with_attention(images)
    rows = maps.new_zeros(len(maps), width)
    values = maps.flatten(1)
    end = BEFORE_VALUES + values.shape[1]
    if end <= width:
        least, greatest = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
        span = greatest - least
        rows[:, 0], rows[:, 1] = maps.shape[1:]
        rows[:, 2:3], rows[:, 3:4] = least, span
        rows[:, BEFORE_VALUES:end] = (values - least) / torch.where(span > 0, span, 1)
    return torch.cat([descriptors.flatten(1), rows], dim=1)


def decode_map(row: np.ndarray) -> np.ndarray | None:
    """Return the map in a row of the store, (h, w) float32; None if it was left out or is not valid."""
    height, width = (int(side) if np.isfinite(side) else 0 for side in row[:2])
    used = row[: BEFORE_VALUES + max(height, 0) * max(width, 0)].astype(np.float32)
    if min(height, width) < 1 or len(used) < BEFORE_VALUES + height * width or not np.isfinite(used).all():
        return None
    least, span = used[2:BEFORE_VALUES]
    heat: np.ndarray = least + span * used[BEFORE_VALUES:].reshape(height, width)
    return heat
