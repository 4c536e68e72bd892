"""Images a second of the whole evaluation, against the original's way and the backbone alone.

Random weights, drawn pictures: nothing is downloaded, and no figure but the time means anything.

    python -m benchmarks.evaluation --backbone resnet101_caffe --images 8
"""

import copy
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import original_way
from benchmarks.timing import machine, time_in_turn
from models.attention import ContextAwareRegionalAttention
from models.backbones import BACKBONES
from models.batch_norm_folding import fold_batch_norms
from models.retrieval_network import RetrievalNetwork
from models.whitening import Whitening
from utils import arguments
from utils.describe import describe
from utils.device import CPU_BATCH_SIZE, suitable_workers
from utils.distributed import Ranks
from utils.errors import run_command
from utils.file_names import IMAGES_FOLDER
from utils.image_loading import Picture, load_pixels
from utils.mini_benchmark import MiniSettings, draw_benchmark


@torch.inference_mode()
def main(backbone: str, images: int, rounds: int, longer_side: int, workers: int | None) -> None:
    """Prints the table."""
    torch.manual_seed(0)
    workers = suitable_workers(torch.device("cpu")) if workers is None else workers
    entry = BACKBONES[backbone]
    plain = entry.build().eval()
    folded = fold_batch_norms(copy.deepcopy(plain)).to(memory_format=torch.channels_last)
    attention = ContextAwareRegionalAttention(entry.channels)
    whitening = Whitening(torch.randn(entry.channels, entry.channels) / 45, -torch.rand(entry.channels))
    network = RetrievalNetwork(folded, entry.stride, attention=attention, whitening=whitening).eval()

    with tempfile.TemporaryDirectory() as folder:
        draw_benchmark(Path(folder) / "Mini", MiniSettings(landmarks=0, distractors=images))
        files = sorted((Path(folder) / "Mini" / IMAGES_FOLDER).iterdir())
        pictures = [Picture(path) for path in files]
        loaded = [
            entry.normalise(load_pixels(picture, longer_side).unsqueeze(0)).clone() for picture in pictures
        ]
        planar = [image.contiguous() for image in loaded]

        def original() -> None:
            for picture in pictures:
                image = entry.normalise(load_pixels(picture, longer_side).unsqueeze(0)).contiguous()
                original_way.describe(plain, image, attention, whitening)

        def plain_backbone() -> None:
            for image in planar:
                plain(image)

        def folded_backbone() -> None:
            for image in loaded:
                folded(image)

        def ours() -> None:
            sizes = {"longer_side": longer_side, "batch_size": CPU_BATCH_SIZE, "workers": workers}
            describe(network, entry, pictures, ranks=Ranks(0, 1, torch.device("cpu")), **sizes)

        ways = {
            "the original's way": original,
            "backbone alone, as published": plain_backbone,
            "backbone alone, folded, channels_last": folded_backbone,
            "evaluation here": ours,
        }
        seconds = time_in_turn(ways, rounds)

    first = next(iter(seconds.values()))
    print(machine())
    print(f"{backbone}, {images} images, S {longer_side}, median of {rounds} rounds")
    print("| | images/s | against the original |")
    print("|---|---|---|")
    for name, time in seconds.items():
        print(f"| {name} | {images / time:.2f} | {first / time:.2f} |")
    share = 1 - seconds["backbone alone, folded, channels_last"] / seconds["evaluation here"]
    print(f"decoding, resizing, copying and head: {100 * share:.1f} % of the evaluation")


def command_line() -> None:
    """Reads the options and measures."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=list(BACKBONES), default="resnet101_caffe", help="which")
    parser.add_argument("--images", type=arguments.at_least(1), default=8, help="pictures a round")
    parser.add_argument("--rounds", type=arguments.at_least(1), default=3, help="times that each way runs")
    parser.add_argument("--longer-side", type=arguments.at_least(1), default=arguments.LONGER_SIDE, help="S")
    parser.add_argument("--workers", type=arguments.at_least(0), help="what suits the CPU if not given")
    main(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(run_command(command_line))
