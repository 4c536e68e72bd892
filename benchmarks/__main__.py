"""Print one Markdown report: the stages of the evaluation, scoring, and the cost of search by database size.

python -m benchmarks
python -m benchmarks --backbone efficientnet_lite0 --images 16 --sizes 1000 100000
"""

import sys

from benchmarks import evaluation, scoring, search
from benchmarks.evaluation import EvaluationOptions
from benchmarks.search import SIZES, SearchOptions
from benchmarks.timing import machine
from utils.options.options_class import options_class, redefault
from utils.options.parser import parse_options
from utils.program.run_command import run_command


@options_class
class ReportOptions(EvaluationOptions):
    """Options of the report."""

    sizes: tuple[int, ...] = redefault(SearchOptions, "sizes", SIZES)


def command_line() -> None:
    """Read the options and print the report."""
    options = parse_options(ReportOptions, __doc__.splitlines()[0])
    print(f"# Benchmarks\n\n{machine()}\n\n## Evaluation, stage by stage\n", flush=True)
    evaluation.report(options)
    print("\n## Scoring\n", flush=True)
    scoring.report(options.rounds)
    print("\n## Search, cost against size\n", flush=True)
    search.report(SearchOptions(sizes=options.sizes, rounds=options.rounds))


if __name__ == "__main__":
    sys.exit(run_command(command_line))
