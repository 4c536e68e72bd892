"""Draws the README's picture: queries of an evaluation and the first images of their rankings.

A frame is green round a positive, grey round junk and red round anything else; the query's own image is left
out, wherever it ranks.

    python Measure_OxfordParis.py --dataset Mini ... --output results
    python -m docs.draw_rankings datasets/Mini results docs/rankings.jpg --queries landmark00_1 landmark08_2
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from utils import arguments, report
from utils.atomic_files import replace_file
from utils.errors import UserError, run_command
from utils.file_names import RANKINGS_FOLDER
from utils.image_loading import read_image
from utils.oxford_paris import Query, RetrievalDataset, read_dataset

TILE = (176, 132)
FRAME = 5
COLORS = {"positive": (60, 160, 70), "junk": (150, 150, 150), "wrong": (205, 60, 50), "query": (40, 90, 200)}


def strip(data: RetrievalDataset, query: Query, ranking: list[str], count: int) -> Image.Image:
    """A query with its box, then the first `count` images of its ranking, in a row."""
    image = Image.fromarray(read_image(data.images[query.image]))
    ImageDraw.Draw(image).rectangle(query.box, outline=COLORS["query"], width=max(image.size) // 80)
    tiles = [_tile(image, COLORS["query"])]
    for name in [name for name in ranking if name != query.image][:count]:
        kind = "junk" if name in query.junk else "positive" if name in query.good | query.ok else "wrong"
        tiles.append(_tile(Image.fromarray(read_image(data.images[name])), COLORS[kind]))
    row = Image.new("RGB", (len(tiles) * tiles[0].width, tiles[0].height), "white")
    for place, tile in enumerate(tiles):
        row.paste(tile, (place * tile.width, 0))
    return row


def _tile(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    framed = ImageOps.expand(ImageOps.contain(image, TILE), FRAME, color)
    return ImageOps.pad(framed, (TILE[0] + 4 * FRAME, TILE[1] + 4 * FRAME), color="white")


def command_line() -> None:
    """Reads the options and draws."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="folder of the data set")
    parser.add_argument("results", type=Path, help="--output of the evaluation")
    parser.add_argument("picture", type=Path, help="file to write, .jpg or .png")
    parser.add_argument("--queries", nargs="+", help="names; the first three if not given")
    parser.add_argument("--count", type=arguments.at_least(1), default=6, help="images a query")
    options = parser.parse_args()
    data = read_dataset(options.dataset)
    queries = {query.name: query for query in data.queries}
    rows = []
    for name in options.queries or list(queries)[:3]:
        if name not in queries:
            raise UserError(f"{options.dataset} has no query {name}")
        ranking = report.ranking_file(options.results / RANKINGS_FOLDER, name).read_text(encoding="utf-8")
        rows.append(strip(data, queries[name], ranking.splitlines(), options.count))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for place, row in enumerate(rows):
        sheet.paste(row, (0, place * row.height))
    with replace_file(options.picture) as file:
        sheet.save(file, "PNG" if options.picture.suffix.lower() == ".png" else "JPEG", quality=88)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
