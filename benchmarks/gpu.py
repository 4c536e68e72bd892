"""Check a GPU against the CPU, and time the evaluation, the original method and exact search on it.

Weights are random, images are drawn, and nothing is downloaded. Only torch, torchvision, Pillow and numpy are
needed. A run takes a few minutes: cases that have not begun after LIMIT seconds are skipped and marked so in
the table. The exit status is 1 if a check fails.

    python -m benchmarks.gpu
"""

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import original_method
from benchmarks.random_networks import folded, head, network_of, plain_backbone, settle
from benchmarks.timing import machine, time_in_turn, timed
from models.attention_classifier import AttentionClassifier, RegionFeatures
from models.backbones.registry import backbone_spec
from models.retrieval_network import RetrievalNetwork
from utils.data.mini import MiniSettings, draw_benchmark
from utils.descriptors.extraction import network_outputs
from utils.descriptors.rows import row_blocks
from utils.device import PRECISIONS, choose_device, suitable_memory_format, suitable_workers
from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER
from utils.images.batches import Batch, Loading, size_batches
from utils.images.loading import InputImage, load_pixels
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.program.run_command import run_command
from utils.search.exact import top_rows

LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
"""Smallest cosine similarity allowed between a descriptor and the CPU's descriptor in float32."""

LEAST_SIDE = 192
"""The original method fails on smaller images, in which a region has no cell."""

LEAST_SHARE = 0.9
"""Share of the backbone's images per second that the evaluation should reach."""

CHECKED = ("resnet101_caffe", "efficientnet_lite0")
CHECKED_IMAGES, CHECKED_SIDE = 4, 512
MEASURED = "resnet101_caffe"
BATCH_SIZE = 16
PASS_SECONDS = 5.0
"""Images of a pass, as seconds of the backbone alone: long enough that the start of workers costs little."""

ROUNDS = 2
NEW_SIZES, NEW_SIZE = 3, 512
LIMIT = 390.0
WIDTH, QUERIES, NEAREST = 2048, 70, 100


class Sizes(NamedTuple):
    """Number and size of the images, number of descriptors, and seconds of a pass."""

    images: int
    longer_side: int
    rows: int
    pass_seconds: float


class Case(NamedTuple):
    """Settings of one evaluation."""

    precision: str
    batch_size: int
    compiled: bool


CASES = [
    *(Case(precision, BATCH_SIZE, False) for precision in PRECISIONS),
    *(Case("bfloat16", batch_size, False) for batch_size in (4, 32)),
    *(Case(precision, BATCH_SIZE, True) for precision in PRECISIONS),
]
"""Compiled cases take long to start and come last."""


class Rates(NamedTuple):
    """Images per second, and the GPU's peak memory in MB."""

    backbone: float
    evaluation: float
    memory: float


class Check(NamedTuple):
    """Name of a comparison with the CPU, its result, and whether it passed."""

    name: str
    result: str
    passed: bool


def descriptor_checks(images: list[InputImage], longer_side: int, device: torch.device) -> Iterator[Check]:
    """Compare the descriptors of a few images, of each backbone in each precision."""
    for name in CHECKED:
        spec = backbone_spec(name)
        pixels = [load_pixels(image, longer_side) for image in images]
        settled = settle(plain_backbone(name), spec.preprocessing()(pixels[0].unsqueeze(0)))
        expected = describe_pixels(network_on(settled, name), pixels)
        for precision, dtype in PRECISIONS.items():
            descriptors = describe_pixels(network_on(settled, name, device, dtype), pixels)
            cosine = float(F.cosine_similarity(descriptors, expected).min())
            result = f"least cosine {cosine:.6f}"
            yield Check(f"descriptors, {name}, {precision}", result, cosine >= LEAST_COSINE[precision])


def describe_pixels(network: RetrievalNetwork, pixels: list[torch.Tensor]) -> torch.Tensor:
    """Return the descriptors (N, D) of images, computed one by one and moved to the CPU."""
    prepare = network.backbone.prepare
    return torch.cat([network(prepare(image.unsqueeze(0)))[:, 0].cpu() for image in pixels])


def search_check(device: torch.device) -> Check:
    """Compare exact search among rows of which some are equal and some nearly equal."""
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((20_000, 256), np.float32))
    rows[5000:6000] = rows[:1000]
    rows[6000:7000] = unit(rows[:1000] + 1e-7 * rng.standard_normal((1000, 256), np.float32))
    rows, queries = rows.astype(np.float16), unit(rng.standard_normal((QUERIES, 256), np.float32))
    expected, actual = (top_rows(queries, rows, NEAREST, on) for on in ("cpu", device))
    same = all(map(np.array_equal, actual, expected))
    return Check("exact search", "identical" if same else "different", same)


def gradient_check(device: torch.device) -> Check:
    """Compare the gradients of one training step of the attention head."""
    torch.manual_seed(0)
    attention = head(MEASURED).attention
    shapes = ((4, 70, WIDTH), (4, 70, WIDTH), (4, WIDTH))
    features = RegionFeatures(*(torch.rand(shape) for shape in shapes))
    classes, weight, bias = torch.arange(4), torch.randn(1000, WIDTH) / 45, torch.zeros(1000)

    def gradients(on: torch.device | str) -> list[Tensor]:
        model = AttentionClassifier(copy.deepcopy(attention), weight, bias).to(on)
        scores = model(RegionFeatures(*(tensor.to(on) for tensor in features)))
        parameters = list(model.attention.parameters())
        result = torch.autograd.grad(F.cross_entropy(scores, classes.to(on)), parameters)
        return [gradient.cpu() for gradient in result]

    expected = gradients("cpu")
    pairs = zip(gradients(device), expected, strict=True)
    error = max(float((one - other).norm() / other.norm()) for one, other in pairs)
    return Check("gradients of attention", f"relative difference {error:.1e}", error <= 1e-4)


def network_on(
    backbone: nn.Module,
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    compile_it: bool = False,
) -> RetrievalNetwork:
    """Return the evaluation's network on a device, with a folded copy of a backbone's layers."""
    network = network_of(name, folded(backbone).to(dtype=dtype), copy.deepcopy(head(name))).to(device)
    network.backbone.set_memory_format(suitable_memory_format(torch.device(device), backbone))
    if compile_it:
        network.backbone.compile_features()
    return network


def report_evaluation(images: list[InputImage], sizes: Sizes, device: torch.device, start: float) -> None:
    """Print images per second of the backbone alone and of the full evaluation, for each case."""
    print(
        f"{MEASURED}, S {sizes.longer_side}, {suitable_workers(device)} workers, median of {ROUNDS} rounds:"
    )
    print()
    print(
        "| precision | batch size | compiled | backbone alone, images/s | evaluation, images/s | share "
        f"| at least {LEAST_SHARE} | peak GPU memory, MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        result = f"{case.precision} | {case.batch_size} | {'yes' if case.compiled else 'no'}"
        if time.perf_counter() - start > LIMIT:
            print(f"| {result} | skipped: no time left | | | | |", flush=True)
            continue
        if case.compiled and device.type == "cpu":
            print(f"| {result} | skipped: no GPU | | | | |", flush=True)
            continue
        try:
            rates = measure(case, images, sizes, device)
        except (RuntimeError, UserError) as error:  # out of memory or no compiler: go on with the next case
            print(f"| {result} | failed: {str(error).splitlines()[0]} | | | | |", flush=True)
            continue
        share = rates.evaluation / rates.backbone
        print(
            f"| {result} | {rates.backbone:.1f} | {rates.evaluation:.1f} | {share:.3f} | "
            f"{'reached' if share >= LEAST_SHARE else 'missed'} | {rates.memory:.0f} |",
            flush=True,
        )
    few = images[:8]
    seconds = time_in_turn({"original": lambda: original(few, sizes.longer_side, device)}, 1)["original"]
    print(f"| original, float32 | 1 | no | | {len(few) / seconds:.1f} | | | |", flush=True)


def measure(case: Case, images: list[InputImage], sizes: Sizes, device: torch.device) -> Rates:
    """Time the backbone alone, on batches already on the device, and the full evaluation, in turn.

    Raises:
        RuntimeError: the backbone cannot be compiled, or memory runs out.
        UserError: memory runs out.
    """
    dtype = PRECISIONS[case.precision]
    network = network_on(plain_backbone(MEASURED), MEASURED, device, dtype, case.compiled)
    loading = Loading(sizes.longer_side, case.batch_size, suitable_workers(device))
    loaded = [
        network.backbone.prepare(batch.pixels)
        for batch in size_batches(images, loading._replace(workers=0))
        if isinstance(batch, Batch)
    ]

    def alone(repeats: int) -> None:
        for batch in loaded * repeats:
            network.backbone(batch)
        wait(device)

    alone(1)  # compile, and let cuDNN choose its algorithms
    repeats = max(round(sizes.pass_seconds / timed(lambda: alone(1))[0]), 1)

    def evaluate() -> None:
        for _ in network_outputs(network, images * repeats, loading):
            pass

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = time_in_turn({"alone": lambda: alone(repeats), "evaluation": evaluate}, ROUNDS)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")
    count = repeats * len(images)
    return Rates(count / seconds["alone"], count / seconds["evaluation"], memory)


def original(images: list[InputImage], longer_side: int, device: torch.device) -> None:
    """Describe images by the original method: one image and one region at a time."""
    preprocessing, backbone = backbone_spec(MEASURED).preprocessing(), plain_backbone(MEASURED).to(device)
    parts = head(MEASURED)
    attention, whitening = (
        copy.deepcopy(parts.attention).to(device),
        copy.deepcopy(parts.whitening).to(device),
    )
    for image in images:
        tensor = preprocessing(load_pixels(image, longer_side).unsqueeze(0)).contiguous().to(device)
        original_method.describe(backbone, tensor, attention, whitening).cpu()


def report_new_sizes(longer_side: int, device: torch.device) -> None:
    """Print the seconds of the first and the second image of a size, for each backbone and precision."""
    print(f"Median of {NEW_SIZES} sizes, longer side {longer_side}:\n")
    print("| backbone | precision | first image of a size, s | next image, s |")
    print("|---|---|---|---|")
    for name in CHECKED:
        for precision, dtype in PRECISIONS.items():
            network = network_on(plain_backbone(name), name, device, dtype)

            def describe(height: int, network: RetrievalNetwork = network) -> float:
                image = torch.zeros(height, longer_side, 3, dtype=torch.uint8)
                return timed(partial(describe_pixels, network, [image]))[0]

            describe(longer_side)  # load the libraries
            heights = [longer_side - 16 * (index + 1) for index in range(NEW_SIZES)]
            seconds = [[describe(height), describe(height)] for height in heights]
            first, second = np.median(seconds, axis=0)
            print(f"| {name} | {precision} | {first:.3f} | {second:.3f} |", flush=True)


def report_search(rows: int, device: torch.device) -> None:
    """Print seconds of exact search in main memory, and of the copies and products that it consists of."""
    torch.manual_seed(0)
    database = np.empty((rows, WIDTH), np.float16)
    for _, block in row_blocks(database):
        drawn = F.normalize(torch.randn(block.shape, device=device), dim=1)
        block[:] = drawn.half().cpu().numpy()
    queries = F.normalize(torch.randn(QUERIES, WIDTH), dim=1)
    left, resident = queries.to(device), torch.from_numpy(database[:4096]).to(device).float()

    def multiply() -> None:
        for _ in range(-(-rows // len(resident))):
            left @ resident.T
        wait(device)

    def move() -> None:
        for _, block in row_blocks(database):
            torch.from_numpy(block).to(device, copy=True)
        wait(device)

    functions: dict[str, Callable[[], object]] = {
        "exact search": lambda: top_rows(queries.numpy(), database, NEAREST, device),
        "copying the descriptors to the device alone": move,
        "float32 matrix product alone": multiply,
    }
    print(f"{QUERIES} queries, their first {NEAREST} of {rows:,} descriptors of {WIDTH} x float16:")
    print()
    print("| search | seconds |")
    print("|---|---|")
    for name, seconds in time_in_turn(functions, ROUNDS).items():
        print(f"| {name} | {seconds:.3f} |")


def wait(device: torch.device) -> None:
    """Wait until a GPU has done its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows (N, D) divided by their lengths, in float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def main(device_name: str, sizes: Sizes) -> None:
    """Run the checks and measurements, and print them.

    Raises:
        UserError: there is no such device.
        SystemExit: a check failed.
    """
    start, device = time.perf_counter(), choose_device(device_name)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: a dry run"
    print(f"# GPU\n\n{name}; {machine()}\n\n## Checks against the CPU\n\n| check | result | |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        draw_benchmark(Path(folder) / "Mini", MiniSettings(landmarks=0, distractors=sizes.images))
        images = [InputImage(path) for path in sorted((Path(folder) / "Mini" / IMAGES_FOLDER).iterdir())]
        checks = [gradient_check(device)]
        with torch.inference_mode():
            side = min(CHECKED_SIDE, sizes.longer_side)
            checks += [*descriptor_checks(images[:CHECKED_IMAGES], side, device), search_check(device)]
            for check in checks:
                print(f"| {check.name} | {check.result} | {'pass' if check.passed else 'FAIL'} |", flush=True)
            print("\n## Evaluation\n", flush=True)
            report_evaluation(images, sizes, device, start)
    print("\n## New image sizes\n", flush=True)
    with torch.inference_mode():
        report_new_sizes(min(NEW_SIZE, sizes.longer_side), device)
    print("\n## Search\n", flush=True)
    report_search(sizes.rows, device)
    print(f"\n{time.perf_counter() - start:.0f} seconds in total")
    failed = [check.name for check in checks if not check.passed]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


@options_class
class GPUOptions:
    """Options of the measurement."""

    title = "measurement"

    device: str = option(default="cuda", help="cuda, one GPU as cuda:1, or cpu for a dry run")
    images: int = option(default=64, help="images drawn", valid=COUNTS)
    longer_side: int = option(default=1024, help="S", valid=Range(LEAST_SIDE, 32768))
    rows: int = option(default=1_000_000, help="descriptors searched", valid=COUNTS)
    pass_seconds: float = option(
        default=PASS_SECONDS,
        help="seconds of the backbone alone",
        valid=Range(0, 10**6, exclude_least=True),
    )


def command_line() -> None:
    """Read the options, check and measure."""
    options = parse_options(GPUOptions, __doc__.splitlines()[0])
    sizes = Sizes(options.images, options.longer_side, options.rows, options.pass_seconds)
    main(options.device, sizes)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
