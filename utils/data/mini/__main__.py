"""Draw the Mini benchmark in any size, for load tests.

python -m utils.data.mini datasets/Mini10k --distractors 10000
python Measure_OxfordParis.py --dataset Mini10k ...
"""

import sys
from pathlib import Path

from utils.data.mini import MiniSettings, draw_benchmark
from utils.errors import UserError
from utils.file_names import MINI_SETTINGS
from utils.options.option import Range
from utils.options.options_class import option, options_class, redefault
from utils.options.parser import parse_options
from utils.options.shared import COUNTS, RunOptions
from utils.program.run_command import run_command


@options_class
class MiniOptions:
    """Options of the program."""

    title = "drawing"

    folder: Path = option(help="output folder, replaced if it is a drawn benchmark", positional=True)
    landmarks: int = option(default=MiniSettings().landmarks, help="number of landmarks", valid=COUNTS)
    distractors: int = option(
        default=MiniSettings().distractors, help="images without a landmark", valid=Range(0, 10**9)
    )
    seed: int = redefault(RunOptions, "seed", MiniSettings().seed)
    workers: int | None = option(
        default=None, help="processes that draw; one per core if not given", valid=Range(1, 1024)
    )


def command_line() -> None:
    """Draw the benchmark that the command line asks for."""
    options = parse_options(MiniOptions, __doc__.splitlines()[0])
    if options.folder.exists() and not (options.folder / MINI_SETTINGS).is_file():
        raise UserError(f"{options.folder} was not drawn by this program: choose another folder")
    settings = MiniSettings(options.seed, options.landmarks, options.distractors)
    draw_benchmark(options.folder, settings, options.workers)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
