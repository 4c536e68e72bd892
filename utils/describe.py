"""Descriptors of pictures, one row each."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from models.backbones import Backbone
from models.retrieval_network import RetrievalNetwork
from utils.distributed import Ranks
from utils.errors import UserError
from utils.extraction import network_outputs
from utils.image_loading import Picture, UnreadableImageError
from utils.size_batches import BadPicture

log = logging.getLogger(__name__)


class Descriptors(NamedTuple):
    """One row a picture, (N, D) float32, and the pictures that could not be decoded, whose rows are zero."""

    rows: np.ndarray
    bad: dict[int, UnreadableImageError]


def describe(
    network: RetrievalNetwork,
    backbone: Backbone,
    pictures: Sequence[Picture],
    *,
    longer_side: int,
    batch_size: int,
    workers: int,
    ranks: Ranks,
    skip_bad_images: bool = False,
    title: str = "images",
) -> Descriptors:
    """Describes pictures by a network; each of several processes a part, and all get the whole.

    Args:
        network: in evaluation mode, on its device.
        backbone: the entry of its backbone, which says how pixels are prepared.
        pictures: what to describe.
        longer_side: S, the longer side of the resized images, in pixels.
        batch_size: pictures of one size in a batch, at most.
        workers: processes that decode, 0 for this one.
        ranks: the processes that share the work.
        skip_bad_images: go on after a picture that cannot be decoded.
        title: what the progress bar calls the pictures.

    Raises:
        UnreadableImageError: a picture cannot be decoded, unless those are skipped.
        UserError: a descriptor is not finite, the memory does not suffice, or a worker died.
    """
    mine = ranks.share(range(len(pictures)))
    rows: np.ndarray | None = None
    bad: dict[int, UnreadableImageError] = {}
    sizes = {"longer_side": longer_side, "batch_size": batch_size, "workers": workers}
    bar = tqdm(total=len(mine), desc=title, unit="image", disable=None if ranks.leads else True)
    with bar:
        for output in network_outputs(network, backbone, [pictures[place] for place in mine], **sizes):
            if isinstance(output, BadPicture):
                if not skip_bad_images:
                    raise output.error
                bad[mine[output.index]] = output.error
                bar.update()
                continue
            if rows is None:
                rows = np.zeros((len(pictures), output.values.shape[1]), np.float32)
            rows[[mine[index] for index in output.indices]] = output.values
            bar.update(len(output.indices))
    bad = dict(sorted(ranks.gather(list(bad.items()))))
    widths = ranks.gather([] if rows is None else [rows.shape[1]])
    if not widths:
        raise UserError(f"none of the {len(pictures)} {title} can be decoded")
    rows = ranks.add_up_array(np.zeros((len(pictures), widths[0]), np.float32) if rows is None else rows)
    empty = [place for place in np.flatnonzero(~rows.any(axis=1)) if place not in bad]
    if empty and ranks.leads:
        log.warning(
            "note: the network sees nothing in %d %s (%s the first), whose descriptors are zero",
            len(empty),
            title,
            pictures[empty[0]].path,
        )
    return Descriptors(rows, bad)
