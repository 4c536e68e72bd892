"""Time and memory of learning a whitening, compared with scikit-learn's PCA, and the speed of its extraction.

Vectors and weights are random, and images are drawn. Each measurement runs in a separate process, which gives
its peak memory. scikit-learn, a test requirement, needs all vectors at once.

    python -m benchmarks.pca
    python -m benchmarks.pca --vectors 10000 100000 1000000 5000000 --skip-scikit-learn
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.random_networks import folded_backbone, network_of
from benchmarks.timing import alone, machine, peak_memory, time_in_turn, timed
from models.backbones.registry import backbone_spec
from models.poolings.rmac import RMAC
from models.retrieval_network import RetrievalNetwork
from utils.data.mini import MiniSettings, draw_benchmark
from utils.descriptors.extraction import network_outputs
from utils.device import CPU_BATCH_SIZE
from utils.file_names import IMAGES_FOLDER
from utils.images.batches import Loading
from utils.images.loading import InputImage
from utils.options.option import Range
from utils.options.options_class import option, options_class, redefault
from utils.options.parser import parse_options
from utils.options.shared import COUNTS, BackboneOptions
from utils.program.run_command import run_command
from utils.whitening.pca import StreamingPCA

CHANNELS = 2048
LONGER_SIDE, LEVELS = 800, 3
ROWS = 2000
"""Number of vectors of 100 images."""


def learn(method: str, vectors: int) -> tuple[float, float]:
    """Return seconds and peak memory in MB of learning from random vectors; call it in a fresh process.

    StreamingPCA gets 20 vectors at a time, as many as an image has. The time to draw them is not counted.

    Args:
        method: "here" or "scikit-learn".
        vectors: their number.
    """
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 0.01, CHANNELS, dtype=np.float32)
    mixing = rng.standard_normal((CHANNELS, CHANNELS), np.float32) * scales
    blocks = [rng.standard_normal((ROWS, CHANNELS), np.float32) @ mixing + 3 for _ in range(8)]
    if method == "scikit-learn":
        from sklearn.decomposition import PCA

        X = np.concatenate([blocks[number % 8] + number // 8 for number in range(vectors // ROWS)])
        seconds, _ = timed(lambda: PCA(whiten=True).fit(X).components_)
        return seconds, peak_memory()
    pca = StreamingPCA(CHANNELS)

    def learn_block(block: np.ndarray) -> None:
        for first in range(0, ROWS, 20):
            pca.add(block[first : first + 20])

    seconds = 0.0
    for number in range(vectors // ROWS):
        seconds += timed(partial(learn_block, blocks[number % 8] + number // 8))[0]
    seconds += timed(lambda: pca.components)[0]
    return seconds, peak_memory()


def learning(sizes: list[int], skip_scikit_learn: bool) -> None:
    """Print the table of times and memory."""
    print("| vectors of 2048 | scikit-learn, s | here, s | times as fast | scikit-learn, MB | here, MB |")
    print("|---|---|---|---|---|---|")
    for size in sizes:
        results = {}
        for method in ("here",) if skip_scikit_learn else ("scikit-learn", "here"):
            results[method] = alone(learn, method, size)
        seconds, memory = results["here"]
        if skip_scikit_learn:
            print(f"| {size:,} | | {seconds:.1f} | | | {memory:.0f} |", flush=True)
        else:
            other_seconds, other_memory = results["scikit-learn"]
            print(
                f"| {size:,} | {other_seconds:.1f} | {seconds:.1f} | {other_seconds / seconds:.1f} | "
                f"{other_memory:.0f} | {memory:.0f} |",
                flush=True,
            )


def extraction(backbone: str, count: int, rounds: int) -> None:
    """Print images per second of the extraction for the PCA and of the evaluation, both at the same S."""
    spec = backbone_spec(backbone)
    evaluation = network_of(backbone, folded_backbone(backbone))
    learning = RetrievalNetwork(evaluation.backbone, [RMAC(LEVELS, spec.stride)]).eval()
    loading = Loading(LONGER_SIDE, CPU_BATCH_SIZE, workers=0)
    with tempfile.TemporaryDirectory() as folder:
        draw_benchmark(Path(folder) / "Mini", MiniSettings(landmarks=0, distractors=count))
        images = [InputImage(path) for path in sorted((Path(folder) / "Mini" / IMAGES_FOLDER).iterdir())]
        vectors = learning.region_vectors
        seconds = time_in_turn(
            {
                "evaluation": lambda: list(network_outputs(evaluation, images, loading)),
                "extraction for the PCA": lambda: list(
                    network_outputs(learning, images, loading, compute=vectors)
                ),
            },
            rounds,
        )
    print(f"| {backbone}, S {LONGER_SIDE} | images/s |")
    print("|---|---|")
    for name, time in seconds.items():
        print(f"| {name} | {count / time:.2f} |")


@options_class
class PCAOptions:
    """Options of the measurement."""

    title = "measurement"

    vectors: tuple[int, ...] = option(
        default=(100_000,), help="numbers of vectors", valid=Range(4000, 10**9), separate=True
    )
    skip_scikit_learn: bool = option(
        default=False, help="leave scikit-learn out, which keeps all vectors in memory"
    )
    backbone: str = redefault(BackboneOptions, "backbone", "resnet101_caffe")
    images: int = option(default=8, help="images per round", valid=COUNTS)
    rounds: int = option(default=3, help="runs of each extraction", valid=COUNTS)


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(PCAOptions, __doc__.splitlines()[0])
    print(machine())
    learning(list(options.vectors), options.skip_scikit_learn)
    extraction(options.backbone, options.images, options.rounds)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
