"""Page with the matches of a query in an index: thumbnails and heat maps of the attention."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from models.retrieval_network import RetrievalNetwork
from utils.errors import UserError
from utils.figures.heat_map import heat_map, image_attention
from utils.figures.result_page import Hit, thumbnail, write_page
from utils.images.loading import InputImage, load_pixels, read_image
from utils.search.image_index import ImageIndex, Match


def write_search_page(
    path: Path,
    query: InputImage,
    matches: Sequence[Match],
    network: RetrievalNetwork,
    index: ImageIndex,
) -> None:
    """Write a page with the matches of a query.

    A match whose file was deleted or became unreadable after indexing is shown without images.

    Args:
        path: the file to write.
        query: the query.
        matches: the matches, in the order to show.
        network: network that described the images. Heat maps are drawn if it has an attention head.
        index: the index that was searched.

    Raises:
        UserError: the query is unreadable, or the page cannot be written.
    """
    longer_side = int(str(index.settings["S"]))

    def attention(image: InputImage) -> Image.Image | None:
        if network.attention_pooling is None:
            return None
        heat = image_attention(network, image, longer_side)
        return heat_map(heat, load_pixels(image, longer_side).numpy())

    shown_query = Hit(
        None, str(query.path), None, thumbnail(read_image(query.path), query.box), attention(query)
    )
    hits = []
    for match in tqdm(matches, "page", unit="image", disable=None):
        hit = Hit(match.rank, str(match.path.relative_to(index.folder)), match.similarity)
        with suppress(UserError):  # it has become unreadable
            pixels, heat = read_image(match.path), attention(InputImage(match.path))
            hit = hit._replace(thumbnail=thumbnail(pixels), heat=heat)
        hits.append(hit)
    write_page(path, shown_query, hits, f"Images like {query.path.name}", index_note(index))


def index_note(index: ImageIndex) -> str:
    """Return a line about an index: its images, and the settings of their descriptors."""
    settings = index.settings
    count = len(index.names) if index.total is None else index.total
    return (
        f"{count} images of {index.folder}, described by {settings['backbone']}, "
        f"pooling {settings['pooling']}, {'' if settings['whiten'] else 'not '}whitened, S {settings['S']}"
    )
