"""The limit on unreadable images in the jobs that learn from many."""

from collections.abc import Sequence

from utils.errors import UserError


def check_unreadable(unreadable: Sequence[object], images: int, limit: float, what: str = "images") -> None:
    """Check that no more than a share of the images is unreadable.

    Args:
        unreadable: paths of the unreadable images.
        images: number of all images, the unreadable ones included.
        limit: the largest share that is accepted, 0..1.
        what: name of the images in the message.

    Raises:
        UserError: more are unreadable.
    """
    if len(unreadable) > limit * images:
        raise UserError(
            f"{len(unreadable)} of {images} {what} are unreadable, more than {limit:.0%}; "
            f"{unreadable[0]} is the first"
        )
