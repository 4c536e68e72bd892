"""Page with the matches of queries in an index: thumbnails and heat maps of the attention."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from models.retrieval_network import RetrievalNetwork
from utils.errors import UserError
from utils.figures.heat_map import heat_map, image_attention
from utils.figures.result_page import THUMBNAIL_SIDE, Answer, Evidence, Hit, thumbnail, write_page
from utils.image_index.image_index import ImageIndex, QueryMatches
from utils.image_index.milvus_index import MilvusIndex
from utils.images.loading import InputImage, load_pixels, read_image

Explain = Callable[[int, Path], Evidence | None]
"""A function of the index of a query and the path of a match."""

KEPT_IMAGES = 200
"""Number of images whose thumbnail and heat map are kept for further queries."""


def write_search_page(
    path: Path,
    results: Sequence[QueryMatches],
    network: RetrievalNetwork,
    index: ImageIndex | MilvusIndex,
    explain: Explain | None = None,
    legend: str | None = None,
) -> None:
    """Write a page with the matches of queries.

    A match whose file was deleted or became unreadable after indexing is shown without images.

    Args:
        path: the file to write.
        results: the queries and their matches, in the order to show.
        network: network that described the images. Heat maps are drawn if it has an attention head.
        index: the index that was searched.
        explain: returns what a re-ranking matched, if there was one that can show it.
        legend: description of this.

    Raises:
        UserError: a query is unreadable, or the page cannot be written.
    """
    longer_side = int(str(index.settings["S"]))

    def attention(image: InputImage) -> Image.Image | None:
        if network.attention_pooling is None:
            return None
        heat = image_attention(network, image, longer_side)
        drawn = heat_map(heat, load_pixels(image, longer_side).numpy())
        drawn.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return drawn

    @lru_cache(KEPT_IMAGES)
    def match_images(match: Path) -> tuple[Image.Image | None, Image.Image | None]:
        with suppress(UserError):  # it has become unreadable
            return thumbnail(read_image(match)), attention(InputImage(match))
        return None, None

    def answers() -> Iterator[Answer]:
        count = sum(len(matches) for _, matches in results)
        with tqdm(total=count, desc="page", unit="image", disable=None) as bar:
            for number, (query, matches) in enumerate(results):
                shown = Hit(
                    None,
                    str(query.path),
                    thumbnail=thumbnail(read_image(query.path), query.box),
                    heat=attention(query),
                )
                hits = []
                for match in matches:
                    name = str(match.path.relative_to(index.folder))
                    hit = Hit(match.rank, name, match.similarity, *match_images(match.path))
                    with suppress(UserError):  # it has become unreadable
                        evidence = None if explain is None else explain(number, match.path)
                        hit = hit._replace(evidence=evidence)
                    hits.append(hit)
                    bar.update()
                yield Answer(shown, hits)

    name = results[0].query.path.name if len(results) == 1 else f"{len(results)} queries"
    has_heat = network.attention_pooling is not None
    write_page(path, answers(), f"Images like {name}", index_note(index), has_heat, legend)


def index_note(index: ImageIndex | MilvusIndex) -> str:
    """Return a line about an index: its images, and the settings of their descriptors."""
    settings = index.settings
    count = len(index.names) if isinstance(index, ImageIndex) else index.size
    return (
        f"{count} images of {index.folder}, described by {settings['backbone']}, "
        f"pooling {settings['pooling']}, {'' if settings['whiten'] else 'not '}whitened, S {settings['S']}"
    )
