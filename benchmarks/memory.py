"""Peak memory of the evaluation for two sizes of the data set: only the descriptors should add to it.

python -m benchmarks.memory
"""

import tempfile
from pathlib import Path

import Measure_OxfordParis
from benchmarks.timing import alone, machine, peak_memory
from utils.data.mini import MiniSettings, draw_benchmark

SIZES = (100, 1000)


def evaluation_memory(data: Path) -> float:
    """Return the peak memory in MB of the evaluation of a data set; call it in a fresh process."""
    Measure_OxfordParis.main(
        str(data),
        backbone="efficientnet_lite0",
        pooling="rmac",
        whiten=False,
        S=256,
        device="cpu",
        workers=0,
    )
    return peak_memory()


def main() -> None:
    """Print the table."""
    print(machine())
    print("| images | peak memory, MB |")
    print("|---|---|")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "Mini"
            draw_benchmark(data, MiniSettings(landmarks=1, distractors=size - 8))
            print(f"| {size} | {alone(evaluation_memory, data):.0f} |")


if __name__ == "__main__":
    main()
