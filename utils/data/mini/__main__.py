"""Draws the Mini benchmark in any size, for load tests.

python -m utils.data.mini datasets/Mini10k --distractors 10000
python Measure_OxfordParis.py --dataset Mini10k ...
"""

import sys

from utils.data.mini import MiniSettings, draw_benchmark
from utils.errors import UserError, run_command
from utils.file_names import MINI_SETTINGS
from utils.options import arguments
from utils.options.ranges import RANGES


def command_line() -> None:
    """Reads the options and draws."""
    default = MiniSettings()
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument("folder", type=arguments.path, help="replaced if it was drawn before")
    parser.add_argument(
        "--landmarks", type=arguments.at_least(1), default=default.landmarks, help="buildings"
    )
    parser.add_argument(
        "--distractors", type=arguments.at_least(0), default=default.distractors, help="other pictures"
    )
    parser.add_argument("--seed", type=RANGES["seed"], default=default.seed, help="of all that is drawn")
    parser.add_argument("--workers", type=arguments.at_least(1), help="processes; one a core if not given")
    options = parser.parse_args()
    if options.folder.exists() and not (options.folder / MINI_SETTINGS).is_file():
        raise UserError(f"{options.folder} was not drawn by this program: choose another folder")
    settings = MiniSettings(options.seed, options.landmarks, options.distractors)
    draw_benchmark(options.folder, settings, options.workers)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
