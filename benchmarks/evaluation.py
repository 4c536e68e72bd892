"""Images per second and memory of the evaluation, of each of its stages, and of the original method.

Weights are random, images are drawn, and nothing is downloaded. Only times and memory are meaningful.

    python -m benchmarks.evaluation --backbone resnet101_caffe --images 8
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmarks import original_method
from benchmarks.random_networks import folded_backbone, head, network_of, plain_backbone
from benchmarks.timing import each_alone, machine, peak_memory, time_in_turn
from models.backbones.registry import backbone_spec
from utils.data.mini import MiniSettings, draw_benchmark
from utils.descriptors.describe import describe
from utils.device import CPU_BATCH_SIZE
from utils.file_names import IMAGES_FOLDER
from utils.images.batches import Loading
from utils.images.loading import InputImage, image_size, load_pixels, read_image, resize, resized_size
from utils.options.options_class import option, options_class, redefault
from utils.options.parser import parse_options
from utils.options.shared import COUNTS, SIDES, BackboneOptions, DeviceOptions
from utils.processes import Processes
from utils.program.run_command import run_command

IMAGES, ROUNDS = 8, 3
MEASURED = 2
"""Number of images for the memory of a stage: the evaluation decodes one while it computes another."""

ORIGINAL, DECODE, RESIZE, NORMALISE = "original", "decode", "resize", "normalise and copy"
PUBLISHED, BOUND = "backbone alone, as published", "backbone alone, folded, channels_last: the bound"
HEAD, EVALUATION = "head", "evaluation here"
IMPORTS = "imports"
STAGES = (DECODE, RESIZE, NORMALISE, PUBLISHED, BOUND, HEAD, EVALUATION, ORIGINAL)


@options_class
class EvaluationOptions:
    """Options of the measurement."""

    title = "measurement"

    backbone: str = redefault(BackboneOptions, "backbone", "resnet101_caffe")
    images: int = option(default=IMAGES, help="images per round", valid=COUNTS)
    rounds: int = option(default=ROUNDS, help="runs of each stage", valid=COUNTS)
    longer_side: int = option(default=1024, help="S", valid=SIDES)
    workers: int | None = redefault(DeviceOptions, "workers", None)


class Setting(NamedTuple):
    """Backbone, images, and how they are loaded."""

    backbone: str
    images: tuple[InputImage, ...]
    loading: Loading


def stage(name: str, setting: Setting) -> Callable[[], object]:
    """Return a function that runs one of STAGES on all images.

    The input of a stage is noise in the shapes that earlier stages would produce. Nothing else is allocated,
    so that the peak memory is that of the stage alone.
    """
    spec, longer_side = backbone_spec(setting.backbone), setting.loading.longer_side
    sizes = [resized_size(*image_size(image.path), longer_side) for image in setting.images]

    def inputs(channels: int, stride: int) -> list[torch.Tensor]:
        shapes = [(1, channels, -(-height // stride), -(-width // stride)) for height, width in sizes]
        return [torch.rand(shape).to(memory_format=torch.channels_last) for shape in shapes]

    if name == DECODE:
        return _each(lambda image: read_image(image.path), setting.images)
    if name == RESIZE:
        decoded = [read_image(image.path) for image in setting.images]
        return _each(lambda pixels: resize(pixels, longer_side), decoded)
    if name == NORMALISE:
        noise = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8) for size in sizes]
        # the evaluation stacks a batch of one, too, which copies it
        return _each(lambda pixels: spec.preprocessing()(torch.stack([pixels]).to("cpu")), noise)
    if name == PUBLISHED:
        return _each(plain_backbone(setting.backbone), [tensor.contiguous() for tensor in inputs(3, 1)])
    if name == BOUND:
        return _each(folded_backbone(setting.backbone), inputs(3, 1))
    if name == HEAD:
        network = network_of(setting.backbone, nn.Identity())
        maps = inputs(spec.channels, spec.stride)
        return _each(lambda pair: network.describe_maps(*pair), list(zip(maps, sizes, strict=True)))
    if name == EVALUATION:
        network = network_of(setting.backbone, folded_backbone(setting.backbone))
        processes = Processes(0, 1, torch.device("cpu"))
        return partial(describe, network, setting.images, setting.loading, processes)
    backbone, parts = plain_backbone(setting.backbone), head(setting.backbone)

    def original(image: InputImage) -> None:
        pixels = load_pixels(image, longer_side)
        tensor = spec.preprocessing()(pixels.unsqueeze(0)).contiguous()
        original_method.describe(backbone, tensor, parts.attention, parts.whitening)

    return _each(original, setting.images)


@torch.inference_mode()
def stage_memory(name: str, setting: Setting) -> float:
    """Return the peak memory in MB of a stage, or of the imports alone; call it in a fresh process."""
    if name != IMPORTS:
        stage(name, setting)()
    return peak_memory()


@torch.inference_mode()
def report(options: EvaluationOptions) -> None:
    """Print the table."""
    backbone, count, rounds = options.backbone, options.images, options.rounds
    loading = Loading.on(torch.device("cpu"), options.longer_side, CPU_BATCH_SIZE, options.workers)
    with tempfile.TemporaryDirectory() as folder:
        draw_benchmark(Path(folder) / "Mini", MiniSettings(landmarks=0, distractors=count))
        files = sorted((Path(folder) / "Mini" / IMAGES_FOLDER).iterdir())
        setting = Setting(backbone, tuple(map(InputImage, files)), loading)
        few = setting._replace(images=setting.images[:MEASURED])
        calls = [(name, few) for name in (IMPORTS, *STAGES)]
        memory = dict(zip((IMPORTS, *STAGES), each_alone(stage_memory, calls, at_once=2), strict=True))
        seconds = time_in_turn({name: stage(name, setting) for name in STAGES}, rounds)

    total = seconds[EVALUATION]
    print(f"{backbone}, {count} images, S {loading.longer_side}, median of {rounds} rounds:")
    print()
    print("| stage | images/s | share of the evaluation | against the original | peak memory, MB |")
    print("|---|---|---|---|---|")
    for name, time in seconds.items():
        share = "" if name in (ORIGINAL, PUBLISHED) else f"{100 * time / total:.1f} %"
        ratio = f"{seconds[ORIGINAL] / time:.2f}" if name in (PUBLISHED, BOUND, EVALUATION, ORIGINAL) else ""
        print(f"| {name} | {count / time:.2f} | {share} | {ratio} | {memory[name]:.0f} |")
    print()
    others = sum(seconds[name] for name in (DECODE, RESIZE, HEAD))
    print(f"Evaluation against the original method: {seconds[ORIGINAL] / total:.2f} times as fast.")
    print(f"Evaluation against the bound: {100 * seconds[BOUND] / total:.1f} % of its rate.")
    print(f"Decode, resize and head: {100 * others / total:.1f} % of the evaluation.")
    print()
    print(f"Each stage ran in a separate process, {memory[IMPORTS]:.0f} MB of which are Python and PyTorch.")


def _each(function: Callable[..., object], inputs: Iterable[object]) -> Callable[[], None]:
    def run() -> None:
        for item in inputs:
            function(item)

    return run


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(EvaluationOptions, __doc__.splitlines()[0])
    print(machine())
    print()
    report(options)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
