"""One report, in Markdown: the evaluation stage by stage, scoring, and the cost of search against size.

python -m benchmarks
python -m benchmarks --backbone efficientnet_lite0 --images 16 --sizes 1000 100000
"""

import sys

from benchmarks import evaluation, scoring, search
from benchmarks.timing import machine
from utils.errors import run_command
from utils.options import arguments


def command_line() -> None:
    """Reads the options and measures."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    evaluation.add_options(parser)
    search.add_size_options(parser)
    options = vars(parser.parse_args())
    sizes = options.pop("sizes")
    print(f"# Benchmarks\n\n{machine()}\n\n## Evaluation, stage by stage\n", flush=True)
    evaluation.report(**options)
    print("\n## Scoring\n", flush=True)
    scoring.report(options["rounds"])
    print("\n## Search, cost against size\n", flush=True)
    search.report(sizes, options["rounds"])


if __name__ == "__main__":
    sys.exit(run_command(command_line))
