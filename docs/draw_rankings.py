r"""Draw the figure of the README: queries of an evaluation and the first images of their rankings.

The image of the query itself is left out of its ranking.

    python Measure_OxfordParis.py --dataset Mini --backbone efficientnet_lite0 --output results
    python -m docs.draw_rankings datasets/Mini results docs/rankings.jpg \
        --queries landmark00_1 landmark03_2 landmark08_2 landmark11_1
"""

import sys
from pathlib import Path

from utils.data.oxford_paris import read_dataset
from utils.data.retrieval_dataset import Query, RetrievalDataset
from utils.errors import UserError
from utils.figures.drawing import Result, Strip, draw_strips
from utils.figures.evaluation import kind_of
from utils.file_names import RANKINGS_FOLDER
from utils.files.reading import read_text
from utils.images.loading import read_image
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.program.run_command import run_command
from utils.scoring import report


def strip(data: RetrievalDataset, query: Query, ranking: list[str], count: int) -> Strip:
    """Return a query with the first `count` images of its ranking."""
    first = [name for name in ranking if name != query.image][:count]
    results = [Result(read_image(data.images[name]), kind_of(name, query)) for name in first]
    return Strip(read_image(data.images[query.image]), query.box, results)


@options_class
class DrawOptions:
    """Options of the drawing."""

    title = "drawing"

    dataset: Path = option(help="folder of the data set", positional=True)
    results: Path = option(help="--output of the evaluation", positional=True)
    image: Path = option(help="file to write, .jpg, .png or .pdf", positional=True)
    queries: tuple[str, ...] = option(default=(), help="queries; the first three if not given", separate=True)
    count: int = option(default=6, help="images per query", valid=Range(1, 10))


def command_line() -> None:
    """Parse the command line of this process, and draw the figure.

    Raises:
        UserError: an option is invalid, a file is unreadable, or the figure cannot be written.
    """
    options = parse_options(DrawOptions, __doc__.splitlines()[0])
    data = read_dataset(options.dataset)
    queries = {query.name: query for query in data.queries}
    rows = []
    for name in options.queries or list(queries)[:3]:
        if name not in queries:
            raise UserError(f"{options.dataset} has no query {name}")
        ranking = read_text(report.ranking_file(options.results / RANKINGS_FOLDER, name))
        rows.append(strip(data, queries[name], ranking.splitlines(), options.count))
    draw_strips(options.image, rows)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
