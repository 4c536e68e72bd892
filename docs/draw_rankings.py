"""Draws the README's picture: queries of an evaluation and the first images of their rankings.

The query's own image is left out, wherever it ranks.

    python Measure_OxfordParis.py --dataset Mini ... --output results
    python -m docs.draw_rankings datasets/Mini results docs/rankings.jpg --queries landmark00_1 landmark08_2
"""

import sys

from utils.data.oxford_paris import Query, RetrievalDataset, read_dataset
from utils.errors import UserError, run_command
from utils.figures.drawing import Result, Strip, draw_strips
from utils.figures.evaluation import kind_of
from utils.file_names import RANKINGS_FOLDER
from utils.images.loading import read_image
from utils.options import arguments
from utils.scoring import report


def strip(data: RetrievalDataset, query: Query, ranking: list[str], count: int) -> Strip:
    """A query and the first `count` images of its ranking."""
    found = [name for name in ranking if name != query.image][:count]
    results = [Result(read_image(data.images[name]), kind_of(name, query)) for name in found]
    return Strip(read_image(data.images[query.image]), query.box, results)


def command_line() -> None:
    """Reads the options and draws."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument("dataset", type=arguments.path, help="folder of the data set")
    parser.add_argument("results", type=arguments.path, help="--output of the evaluation")
    parser.add_argument("picture", type=arguments.path, help="file to write, .jpg, .png or .pdf")
    parser.add_argument("--queries", nargs="+", help="names; the first three if not given")
    parser.add_argument("--count", type=arguments.at_least(1), default=6, help="images a query, at most ten")
    options = parser.parse_args()
    data = read_dataset(options.dataset)
    queries = {query.name: query for query in data.queries}
    rows = []
    for name in options.queries or list(queries)[:3]:
        if name not in queries:
            raise UserError(f"{options.dataset} has no query {name}")
        ranking = report.ranking_file(options.results / RANKINGS_FOLDER, name).read_text(encoding="utf-8")
        rows.append(strip(data, queries[name], ranking.splitlines(), options.count))
    draw_strips(options.picture, rows)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
