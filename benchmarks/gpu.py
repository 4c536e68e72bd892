"""Checks a GPU against the CPU, and measures it: the evaluation, the original's way, exact search.

Random weights, drawn images, no network. It needs torch, torchvision, Pillow and numpy alone, and a few
minutes: what has not begun after LIMIT seconds is left out, and named. Exit status 1 if a check fails.

    python -m benchmarks.gpu
"""

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import original_way
from benchmarks.random_networks import folded, head, network_of, plain_backbone, settle
from benchmarks.timing import machine, time_in_turn, timed
from models.attention_classifier import AttentionClassifier, RegionFeatures
from models.backbones.registry import backbone_spec
from models.retrieval_network import RetrievalNetwork
from utils.data.mini import MiniSettings, draw_benchmark
from utils.descriptors.extraction import network_outputs
from utils.descriptors.rows import row_blocks
from utils.device import PRECISIONS, choose_device, suitable_workers
from utils.errors import UserError
from utils.file_names import IMAGES_FOLDER
from utils.images.batches import Batch, Loading, size_batches
from utils.images.loading import InputImage, load_pixels
from utils.options.option import Range
from utils.options.options_class import option, options_class
from utils.options.parser import parse_options
from utils.options.shared import COUNTS
from utils.program.run_command import run_command
from utils.search.exact import exact_search

LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
"""Smallest cosine similarity of a descriptor and the CPU's in float32."""

LEAST_SIDE = 192
"""The original's way fails on images so small that a region has no cell."""

LEAST_SHARE = 0.9
"""Share of the backbone's rate that the evaluation should reach."""

CHECKED = ("resnet101_caffe", "efficientnet_lite0")
CHECKED_IMAGES, CHECKED_SIDE = 4, 512
MEASURED = "resnet101_caffe"
BATCH_SIZE = 16
PASS_SECONDS = 5.0
"""A pass has so many images as the backbone alone computes in this time: workers need a moment to begin."""

ROUNDS = 2
LIMIT = 390.0
WIDTH, QUERIES, FOUND = 2048, 70, 100


class Sizes(NamedTuple):
    """Numbers and sizes of the measurements."""

    images: int
    longer_side: int
    rows: int
    pass_seconds: float


class Case(NamedTuple):
    """A way to evaluate."""

    precision: str
    batch_size: int
    compiled: bool


CASES = [
    *(Case(precision, BATCH_SIZE, False) for precision in PRECISIONS),
    *(Case("bfloat16", batch_size, False) for batch_size in (4, 32)),
    *(Case(precision, BATCH_SIZE, True) for precision in PRECISIONS),
]
"""Those that take long to begin come last."""


class Rates(NamedTuple):
    """Images a second, and the GPU's peak memory in MB."""

    backbone: float
    evaluation: float
    memory: float


class Check(NamedTuple):
    """A comparison with the CPU, its result, and whether the result is good enough."""

    name: str
    result: str
    passed: bool


def descriptor_checks(images: list[InputImage], longer_side: int, device: torch.device) -> Iterator[Check]:
    """Descriptors of a few images by each backbone, in each precision."""
    for name in CHECKED:
        entry = backbone_spec(name)
        pixels = [load_pixels(image, longer_side) for image in images]
        settled = settle(plain_backbone(name), entry.preprocessing()(pixels[0].unsqueeze(0)))
        expected = describe_pixels(network_on(settled, name), pixels)
        for precision, dtype in PRECISIONS.items():
            descriptors = describe_pixels(network_on(settled, name, device, dtype), pixels)
            cosine = float(F.cosine_similarity(descriptors, expected).min())
            result = f"least cosine {cosine:.6f}"
            yield Check(f"descriptors, {name}, {precision}", result, cosine >= LEAST_COSINE[precision])


def describe_pixels(network: RetrievalNetwork, pixels: list[torch.Tensor]) -> torch.Tensor:
    """Return the descriptors (N, D) of images, computed one by one, on the CPU."""
    prepare = network.backbone.prepare
    return torch.cat([network(prepare(image.unsqueeze(0)))[:, 0].cpu() for image in pixels])


def search_check(device: torch.device) -> Check:
    """Exact search in rows of which some are equal and some all but equal."""
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((20_000, 256), np.float32))
    rows[5000:6000] = rows[:1000]
    rows[6000:7000] = unit(rows[:1000] + 1e-7 * rng.standard_normal((1000, 256), np.float32))
    rows, queries = rows.astype(np.float16), unit(rng.standard_normal((QUERIES, 256), np.float32))
    (places, similar), (others, other) = (exact_search(queries, rows, FOUND, on) for on in ("cpu", device))
    same = np.array_equal(places, others) and np.array_equal(similar, other)
    return Check("exact search", "the same to the bit" if same else "not the same", same)


def gradient_check(device: torch.device) -> Check:
    """Gradients of one step of the attention's training."""
    torch.manual_seed(0)
    attention = head(MEASURED).attention
    shapes = ((4, 70, WIDTH), (4, 70, WIDTH), (4, WIDTH))
    features = RegionFeatures(*(torch.rand(shape) for shape in shapes))
    classes, weight, bias = torch.arange(4), torch.randn(1000, WIDTH) / 45, torch.zeros(1000)

    def gradients(on: torch.device | str) -> list[Tensor]:
        model = AttentionClassifier(copy.deepcopy(attention), weight, bias).to(on)
        scores = model(RegionFeatures(*(tensor.to(on) for tensor in features)))
        parameters = list(model.attention.parameters())
        found = torch.autograd.grad(F.cross_entropy(scores, classes.to(on)), parameters)
        return [gradient.cpu() for gradient in found]

    expected = gradients("cpu")
    found = gradients(device)
    pairs = zip(found, expected, strict=True)
    wrong = max(float((one - other).norm() / other.norm()) for one, other in pairs)
    return Check("gradients of attention", f"relative difference {wrong:.1e}", wrong <= 1e-4)


def network_on(
    backbone: nn.Module,
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    compile_it: bool = False,
) -> RetrievalNetwork:
    """Return the evaluation's network around a folded copy of a backbone's layers, on a device."""
    network = network_of(name, folded(backbone).to(dtype=dtype), copy.deepcopy(head(name))).to(device)
    if compile_it:
        network.backbone.compile_features()
    return network


def report_evaluation(images: list[InputImage], sizes: Sizes, device: torch.device, start: float) -> None:
    """Prints images a second of the backbone alone and of the whole evaluation, case by case."""
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
            print(f"| {result} | left out for want of time | | | | |", flush=True)
            continue
        if case.compiled and device.type == "cpu":
            print(f"| {result} | left out without a GPU | | | | |", flush=True)
            continue
        try:
            rates = measure(case, images, sizes, device)
        except (RuntimeError, UserError) as error:  # too little memory, or no compiler: the others go on
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
    print(f"| the original's way, float32 | 1 | no | | {len(few) / seconds:.1f} | | | |", flush=True)


def measure(case: Case, images: list[InputImage], sizes: Sizes, device: torch.device) -> Rates:
    """Runs the backbone alone on what is on the device already, and the whole evaluation, in turn.

    Raises:
        RuntimeError: the backbone cannot be compiled, or the memory does not suffice.
        UserError: the memory does not suffice.
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

    alone(1)  # compiles, and lets cuDNN choose
    repeats = max(round(sizes.pass_seconds / timed(lambda: alone(1))[0]), 1)

    def whole() -> None:
        for _ in network_outputs(network, images * repeats, loading):
            pass

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = time_in_turn({"alone": lambda: alone(repeats), "whole": whole}, ROUNDS)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")
    count = repeats * len(images)
    return Rates(count / seconds["alone"], count / seconds["whole"], memory)


def original(images: list[InputImage], longer_side: int, device: torch.device) -> None:
    """The original's way: one image, one region at a time."""
    preprocessing, backbone = backbone_spec(MEASURED).preprocessing(), plain_backbone(MEASURED).to(device)
    parts = head(MEASURED)
    attention, whitening = (
        copy.deepcopy(parts.attention).to(device),
        copy.deepcopy(parts.whitening).to(device),
    )
    for image in images:
        tensor = preprocessing(load_pixels(image, longer_side).unsqueeze(0)).contiguous().to(device)
        original_way.describe(backbone, tensor, attention, whitening).cpu()


def report_search(rows: int, device: torch.device) -> None:
    """Prints seconds of exact search, from the computer's memory, and of what it cannot do without."""
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

    ways: dict[str, Callable[[], object]] = {
        "exact search": lambda: exact_search(queries.numpy(), database, FOUND, device),
        "copying the descriptors to the device alone": move,
        "float32 matrix product alone": multiply,
    }
    print(f"{QUERIES} queries, their first {FOUND} of {rows:,} descriptors of {WIDTH} x float16:")
    print()
    print("| search | seconds |")
    print("|---|---|")
    for name, seconds in time_in_turn(ways, ROUNDS).items():
        print(f"| {name} | {seconds:.3f} |")


def wait(device: torch.device) -> None:
    """Wait for the work that a GPU has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) of length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def main(device_name: str, sizes: Sizes) -> None:
    """Prints checks and tables.

    Raises:
        UserError: there is no such device.
        SystemExit: a check failed.
    """
    start, device = time.perf_counter(), choose_device(device_name)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: a dry run"
    print(f"# GPU\n\n{name}; {machine()}\n\n## Checks against the CPU\n\n| check | found | |\n|---|---|---|")
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
    print("\n## Search\n", flush=True)
    report_search(sizes.rows, device)
    print(f"\n{time.perf_counter() - start:.0f} seconds in all")
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
    """Read the options and measure."""
    options = parse_options(GPUOptions, __doc__.splitlines()[0])
    sizes = Sizes(options.images, options.longer_side, options.rows, options.pass_seconds)
    main(options.device, sizes)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
