"""The protocol of an evaluation in one line, without which published scores cannot be compared."""

from collections import Counter

from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.data.revisited import HARD
from utils.images.loading import image_size
from utils.options.shared import DescriptorOptions

BOX_TOLERANCE = 1.0
"""Number of pixels at each side that a box of the complete image may leave out, because of rounding."""

POSITIVE, JUNK, WRONG = "counts as a positive", "is junk", "counts as wrong"
OUTSIDE = "is not in the database"


def protocol_line(data: RetrievalDataset, options: DescriptorOptions | None = None) -> str:
    """Return a line with the size of the images, the crop of the queries, and the use of own images and junk.

    Args:
        data: data set with queries.
        options: options of the descriptors; None for a ranking of another system, whose sizes and crops are
            unknown.

    Raises:
        UserError: the image of a query has become unreadable.
    """
    parts = []
    if options is not None:
        scales = ", ".join(f"{scale:g}" for scale in options.scales)
        parts = [f"S {options.longer_side}", f"scales {scales}", _crops(data)]
    return f"Protocol: {'; '.join([*parts, _own_images(data), _junk(data)])}"


def _crops(data: RetrievalDataset) -> str:
    """Return the text on the crop of the queries."""
    cropped = sum(_is_cropped(data, query) for query in data.queries)
    if not cropped:
        return "queries are complete images"
    share = "queries" if cropped == len(data.queries) else f"{cropped} of {len(data.queries)} queries"
    return f"{share} are cropped to their boxes after resizing"


def _is_cropped(data: RetrievalDataset, query: Query) -> bool:
    """Return whether the box of a query is smaller than its image."""
    if query.box is None:
        return False
    height, width = image_size(data.query_images[query.image])
    x1, y1, x2, y2 = query.box
    left_out = max(x1, y1, width - x2, height - y2)
    return left_out > BOX_TOLERANCE


def _own_images(data: RetrievalDataset) -> str:
    """Return the text on the label of the queries' own images."""
    counts = Counter(_own_label(data, query) for query in data.queries)
    if len(counts) == 1:
        return f"the query's own image {next(iter(counts))}"
    numbers = ", ".join(f"{label} for {count}" for label, count in sorted(counts.items()))
    return f"the query's own image {numbers} queries"


def _own_label(data: RetrievalDataset, query: Query) -> str:
    """Return the label of a query's own image for the query."""
    if query.image not in data.images:
        return OUTSIDE
    if query.image in query.junk:
        return JUNK
    return POSITIVE if query.image in query.good | query.ok else WRONG


def _junk(data: RetrievalDataset) -> str:
    """Return the text on junk images."""
    if HARD in data.protocols:
        return "junk images are removed from the rankings, for Easy also hard and for Hard also easy ones"
    if any(query.junk for query in data.queries):
        return "junk images are removed from the rankings"
    return "there are no junk images"
