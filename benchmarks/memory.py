"""Peak memory of the evaluation at two sizes of the data set: it should not grow but for the descriptors.

python -m benchmarks.memory
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import machine
from utils.mini_benchmark import MiniSettings, draw_benchmark

SIZES = (100, 1000)

MEASURE = """
import resource, sys
import Measure_OxfordParis
Measure_OxfordParis.main(
    sys.argv[1], backbone="efficientnet_lite0", pooling="rmac", whiten=False, S=256, device="cpu", workers=0
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
"""


def main() -> None:
    """Prints the table."""
    print(machine())
    print("| images | peak memory, MB |")
    print("|---|---|")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "Mini"
            draw_benchmark(data, MiniSettings(landmarks=1, distractors=size - 8))
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, data], capture_output=True, text=True, check=True
            )
        print(f"| {size} | {float(done.stderr.split()[-1]):.0f} |")


if __name__ == "__main__":
    main()
