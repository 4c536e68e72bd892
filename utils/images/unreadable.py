"""Limit on the share of unreadable images."""

from collections.abc import Sequence

from utils.errors import UserError


def check_unreadable(unreadable: Sequence[object], images: int, limit: float, kind: str = "images") -> None:
    """Check that not more than a share of the images is unreadable.

    Args:
        unreadable: the paths of the unreadable images.
        images: the number of all images, including unreadable ones.
        limit: the maximum share of unreadable images, from 0 to 1.
        kind: the name of the images in the message.

    Raises:
        UserError: more images are unreadable.
    """
    if len(unreadable) > limit * images:
        raise UserError(
            f"{len(unreadable)} of {images} {kind} are unreadable, more than {limit:.0%}; "
            f"{unreadable[0]} is the first"
        )
