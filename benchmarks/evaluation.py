"""Images a second and memory of the evaluation and of each of its stages, and of the original's way.

Random weights, drawn pictures: nothing is downloaded, and no figure but time and memory means anything.

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

from benchmarks import original_way
from benchmarks.random_networks import folded_backbone, head, plain_backbone
from benchmarks.timing import each_alone, machine, peak_memory, time_in_turn
from models.backbones import BACKBONES
from models.retrieval_network import RetrievalNetwork
from utils.data.mini import MiniSettings, draw_benchmark
from utils.descriptors.describe import describe
from utils.device import CPU_BATCH_SIZE, suitable_workers
from utils.errors import run_command
from utils.file_names import IMAGES_FOLDER
from utils.images.loading import Picture, load_pixels, picture_size, read_image, resize, resized_size
from utils.options import arguments
from utils.processes import Ranks

IMAGES, ROUNDS = 8, 3
MEASURED = 2
"""Images that memory is measured with: the evaluation decodes one while it computes another."""

ORIGINAL, DECODE, RESIZE, NORMALISE = "the original's way", "decode", "resize", "normalise and copy"
PUBLISHED, BOUND = "backbone alone, as published", "backbone alone, folded, channels_last: the bound"
HEAD, EVALUATION = "head", "evaluation here"
IMPORTS = "imports"
STAGES = (DECODE, RESIZE, NORMALISE, PUBLISHED, BOUND, HEAD, EVALUATION, ORIGINAL)


class Setting(NamedTuple):
    """What the stages run on."""

    backbone: str
    pictures: tuple[Picture, ...]
    longer_side: int
    workers: int


def stage(name: str, setting: Setting) -> Callable[[], None]:
    """One of STAGES over all pictures.

    A stage gets noise of the right sizes for what earlier stages would give it, and makes nothing that it
    does not use: its peak memory is its own.
    """
    entry = BACKBONES[setting.backbone]
    sizes = [resized_size(*picture_size(picture.path), setting.longer_side) for picture in setting.pictures]

    def inputs(channels: int, stride: int) -> list[torch.Tensor]:
        shapes = [(1, channels, -(-height // stride), -(-width // stride)) for height, width in sizes]
        return [torch.rand(shape).to(memory_format=torch.channels_last) for shape in shapes]

    if name == DECODE:
        return _each(lambda picture: read_image(picture.path), setting.pictures)
    if name == RESIZE:
        decoded = [read_image(picture.path) for picture in setting.pictures]
        return _each(lambda pixels: resize(pixels, setting.longer_side), decoded)
    if name == NORMALISE:
        noise = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8) for size in sizes]
        # a batch of one is stacked, which copies it, as the evaluation does
        return _each(lambda pixels: entry.normalise(torch.stack([pixels]).to("cpu")), noise)
    if name == PUBLISHED:
        return _each(plain_backbone(setting.backbone), [image.contiguous() for image in inputs(3, 1)])
    if name == BOUND:
        return _each(folded_backbone(setting.backbone), inputs(3, 1))
    if name == HEAD:
        network = RetrievalNetwork(nn.Identity(), entry.stride, **head(setting.backbone)).eval()
        maps = inputs(entry.channels, entry.stride)
        return _each(lambda pair: network.describe_maps(*pair), list(zip(maps, sizes, strict=True)))
    if name == EVALUATION:
        network = RetrievalNetwork(
            folded_backbone(setting.backbone), entry.stride, **head(setting.backbone)
        ).eval()
        return partial(
            describe,
            network,
            entry,
            setting.pictures,
            longer_side=setting.longer_side,
            batch_size=CPU_BATCH_SIZE,
            workers=setting.workers,
            ranks=Ranks(0, 1, torch.device("cpu")),
        )
    backbone, parts = plain_backbone(setting.backbone), head(setting.backbone)

    def original(picture: Picture) -> None:
        pixels = load_pixels(picture, setting.longer_side)
        image = entry.normalise(pixels.unsqueeze(0)).contiguous()
        original_way.describe(backbone, image, parts["attention"], parts["whitening"])

    return _each(original, setting.pictures)


@torch.inference_mode()
def stage_memory(name: str, setting: Setting) -> float:
    """Peak memory in MB of a stage, or of importing what all need; to be called in a fresh process."""
    if name != IMPORTS:
        stage(name, setting)()
    return peak_memory()


@torch.inference_mode()
def report(backbone: str, images: int, rounds: int, longer_side: int, workers: int | None) -> None:
    """Prints the table.

    Args:
        backbone: its name.
        images: drawn pictures.
        rounds: times that each stage runs.
        longer_side: S.
        workers: processes that decode in the evaluation; what suits the CPU if not given.
    """
    workers = suitable_workers(torch.device("cpu")) if workers is None else workers
    with tempfile.TemporaryDirectory() as folder:
        draw_benchmark(Path(folder) / "Mini", MiniSettings(landmarks=0, distractors=images))
        files = sorted((Path(folder) / "Mini" / IMAGES_FOLDER).iterdir())
        setting = Setting(backbone, tuple(map(Picture, files)), longer_side, workers)
        few = setting._replace(pictures=setting.pictures[:MEASURED])
        calls = [(name, few) for name in (IMPORTS, *STAGES)]
        memory = dict(zip((IMPORTS, *STAGES), each_alone(stage_memory, calls, at_once=2), strict=True))
        seconds = time_in_turn({name: stage(name, setting) for name in STAGES}, rounds)

    whole = seconds[EVALUATION]
    print(f"{backbone}, {images} images, S {longer_side}, median of {rounds} rounds:")
    print()
    print("| stage | images/s | share of the evaluation | against the original | peak memory, MB |")
    print("|---|---|---|---|---|")
    for name, time in seconds.items():
        share = "" if name in (ORIGINAL, PUBLISHED) else f"{100 * time / whole:.1f} %"
        ratio = f"{seconds[ORIGINAL] / time:.2f}" if name in (PUBLISHED, BOUND, EVALUATION, ORIGINAL) else ""
        print(f"| {name} | {images / time:.2f} | {share} | {ratio} | {memory[name]:.0f} |")
    print()
    others = sum(seconds[name] for name in (DECODE, RESIZE, HEAD))
    print(f"Evaluation against the original's way: {seconds[ORIGINAL] / whole:.2f} times as fast.")
    print(f"Evaluation against the bound: {100 * seconds[BOUND] / whole:.1f} % of its rate.")
    print(f"Decode, resize and head: {100 * others / whole:.1f} % of the evaluation.")
    print()
    print(
        f"Each memory is of a process of its own, {memory[IMPORTS]:.0f} MB of which are Python and PyTorch."
    )


def _each(way: Callable[..., object], inputs: Iterable[object]) -> Callable[[], None]:
    def run() -> None:
        for item in inputs:
            way(item)

    return run


def add_options(parser: arguments.ArgumentParser) -> None:
    """The options that say what is evaluated, and how often."""
    parser.add_argument("--backbone", choices=list(BACKBONES), default="resnet101_caffe", help="which")
    parser.add_argument("--images", type=arguments.at_least(1), default=IMAGES, help="pictures a round")
    parser.add_argument(
        "--rounds", type=arguments.at_least(1), default=ROUNDS, help="times that each way runs"
    )
    parser.add_argument("--longer-side", type=arguments.at_least(1), default=arguments.LONGER_SIDE, help="S")
    parser.add_argument("--workers", type=arguments.at_least(0), help="what suits the CPU if not given")


def command_line() -> None:
    """Reads the options and measures."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    add_options(parser)
    options = parser.parse_args()
    print(machine())
    print()
    report(**vars(options))


if __name__ == "__main__":
    sys.exit(run_command(command_line))
