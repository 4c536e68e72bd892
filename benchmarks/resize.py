"""CPU time to resize an image to 1024 x 768 pixels, in milliseconds, compared with OpenCV.

Both run in one thread. CPU time excludes other processes on the core.

python -m benchmarks.resize
"""

import sys
import time

import numpy as np
import torch

from benchmarks.timing import machine, time_in_turn
from utils.errors import UserError
from utils.images.resize import bilinear_resize
from utils.program.run_command import run_command

SIZES = ((4000, 3000), (1600, 1200), (800, 600))
"""Width and height of the images."""

TARGET = (1024, 768)
ROUNDS = 15


def report(rounds: int = ROUNDS) -> None:
    """Print the table.

    Raises:
        UserError: OpenCV is not installed.
        AssertionError: the two results differ.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError("this benchmark needs OpenCV: pip install opencv-python-headless") from error
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    width, height = TARGET
    print("| image | OpenCV, CPU ms | here, CPU ms | here / OpenCV |")
    print("|---|---|---|---|")
    for size in SIZES:
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)

        def opencv(pixels: np.ndarray = pixels) -> np.ndarray:
            return cv2.resize(pixels, TARGET, interpolation=cv2.INTER_LINEAR)

        def here(pixels: np.ndarray = pixels) -> np.ndarray:
            return bilinear_resize(pixels, height, width)

        if not np.array_equal(opencv(), here()):
            raise AssertionError("the two results differ")
        seconds = time_in_turn({"OpenCV": opencv, "here": here}, rounds, time.process_time)
        ratio = seconds["here"] / seconds["OpenCV"]
        cells = [f"{1000 * seconds[name]:.1f}" for name in ("OpenCV", "here")]
        print(f"| {size[0]} x {size[1]} | {cells[0]} | {cells[1]} | {ratio:.1f} |")


def command_line() -> None:
    """Print the machine and the table."""
    print(machine())
    report()


if __name__ == "__main__":
    sys.exit(run_command(command_line))
