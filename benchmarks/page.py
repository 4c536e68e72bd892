"""Time of a search on the page of `python Search_Images.py serve`, compared with a query as a process.

The images are drawn. The page is asked as a browser asks it, over HTTP on this computer.

    python -m benchmarks.page
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from benchmarks.timing import machine
from utils.options.options_class import make, option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.photo_search.indexing import build
from utils.photo_search.options import IndexOptions
from utils.program.run_command import run_command

ROOT = Path(__file__).resolve().parents[1]
SIDES = (1600, 1200)


@options_class
class PageBenchmarkOptions:
    """Options of the measurement."""

    title = "measurement"

    images: int = option(default=20, help="number of images in the index", valid=COUNTS)
    rounds: int = option(default=5, help="runs of each search", valid=COUNTS)


class Page:
    """The page of an index.

    Args:
        address: the address that the server printed.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def get(self, path: str, body: bytes | None = None) -> bytes:
        """Return the answer to a request; with a body, it is sent."""
        request = Request(self._address + path, body, {"Origin": self._address})
        with urlopen(request) as answer:
            data: bytes = answer.read()
            return data

    def send(self, photo: bytes) -> str:
        """Send a photo, and return its address."""
        return str(json.loads(self.get("/uploads", photo))["image"])

    def search(self, image: str, box: list[int] | None) -> list[int]:
        """Return the rows of the matches."""
        body = json.dumps({"image": image, "box": box}).encode()
        return [match["row"] for match in json.loads(self.get("/search", body))["matches"]]

    def heat_maps(self, rows: list[int]) -> None:
        """Get the heat maps of images of the index, three at a time as the page does."""
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda row: self.get(f"/images/{row}/attention"), rows))


@contextmanager
def served(index: Path) -> Iterator[Page]:
    """Serve an index for a block."""
    command = [sys.executable, "Search_Images.py", "serve", "--index", str(index), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Page(process.stdout.readline().strip())
        finally:
            process.terminate()


def draw(path: Path, seed: int) -> None:
    """Draw an image of random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(SIDES, Image.Resampling.BICUBIC).save(path)


def seconds(function: Callable[[], object], rounds: int) -> float:
    """Return the median time of a function."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def report(options: PageBenchmarkOptions, folder: Path) -> None:
    """Print the table."""
    (folder / "images").mkdir()
    for number in range(options.images):
        draw(folder / "images" / f"{number}.jpg", number)
    draw(folder / "new.jpg", options.images)
    index = folder / "index"
    build(make(IndexOptions, {"folder": folder / "images", "index": index}))
    command = [sys.executable, "Search_Images.py", "query", str(folder / "new.jpg"), "--index", str(index)]
    query = seconds(
        lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True), options.rounds
    )
    photo = (folder / "new.jpg").read_bytes()
    with served(index) as page:
        sent = page.send(photo)
        start = time.perf_counter()
        page.heat_maps(page.search(sent, None))
        first_maps = time.perf_counter() - start
        corners = count(100)
        maps = f"page: search for a box, {min(options.images, 20)} heat maps"
        rows = {
            "query as a process, new image": query,
            "page: send a photo and search": seconds(
                lambda: page.search(page.send(photo), None), options.rounds
            ),
            "page: search for a box": seconds(
                lambda: page.search(sent, [next(corners), 100, 1000, 900]), options.rounds
            ),
            "page: search for an image of the index": seconds(
                lambda: page.search("images/0", None), options.rounds
            ),
            f"{maps} for the first time": first_maps,
            f"{maps} again": seconds(
                lambda: page.heat_maps(page.search(sent, [next(corners), 100, 1000, 900])), options.rounds
            ),
        }
    print("| search | s | speed-up |")
    print("|---|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.3f} | {query / value:.1f} |")


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(PageBenchmarkOptions, __doc__.splitlines()[0])
    print(machine(), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report(options, Path(folder))


if __name__ == "__main__":
    sys.exit(run_command(command_line))
