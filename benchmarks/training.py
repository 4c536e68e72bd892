"""Images a second of training, against the original's way and the backbone's forward alone.

Random weights and crops; the original's way is its loop over regions, differentiated through the backbone.

    python -m benchmarks.training
"""

import copy
import resource
import sys

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.original_way import pooled_regions
from benchmarks.timing import machine, time_in_turn
from models.attention import ContextAwareRegionalAttention
from models.attention_classifier import AttentionClassifier, RegionFeatures
from models.backbones import BACKBONES
from models.batch_norm_folding import fold_batch_norms
from utils.errors import run_command
from utils.options import arguments
from utils.training.batches import extract_regions

CLASSES = 1000


def train_on(model: AttentionClassifier, features: RegionFeatures, classes: torch.Tensor) -> None:
    """One mini-batch through the head and back."""
    F.cross_entropy(model(features), classes).backward()
    model.zero_grad()


def main(backbone: str, crop: int, batch_size: int, rounds: int, skip_original: bool) -> None:
    """Prints the table."""
    torch.manual_seed(0)
    entry = BACKBONES[backbone]
    plain = entry.build().eval()
    folded = (
        fold_batch_norms(copy.deepcopy(plain)).requires_grad_(False).to(memory_format=torch.channels_last)
    )
    fc = nn.Linear(entry.channels, CLASSES).requires_grad_(False)
    model = AttentionClassifier(ContextAwareRegionalAttention(entry.channels), fc.weight, fc.bias)
    pixels = torch.randint(0, 256, (batch_size, crop, crop, 3), dtype=torch.uint8)
    classes = torch.randint(0, CLASSES, (batch_size,))
    features = extract_regions(folded, entry, arguments.LEVELS, pixels)

    def original() -> None:
        images = entry.normalise(pixels).contiguous()
        pooled = pooled_regions(plain(images), (crop, crop), arguments.LEVELS, model.attention)
        F.cross_entropy(fc(pooled), classes).backward()
        plain.zero_grad()
        model.zero_grad()

    @torch.inference_mode()
    def forward(network: nn.Module) -> None:
        network(entry.normalise(pixels))

    def step() -> None:
        train_on(model, extract_regions(folded, entry, arguments.LEVELS, pixels), classes)

    def peak_memory() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    step()
    step()
    memory_here = peak_memory()
    ways = {} if skip_original else {"the original's way": original}
    ways |= {
        "backbone's forward alone, as published": lambda: forward(plain),
        "backbone's forward alone, folded, channels_last": lambda: forward(folded),
        "a step here": step,
        "a step from precomputed features": lambda: train_on(model, features, classes),
    }
    seconds = time_in_turn(ways, rounds)
    print(machine())
    print(f"{backbone}, a step of {batch_size} crops of {crop}, median of {rounds} rounds")
    print("| | seconds a step | images/s |")
    print("|---|---|---|")
    for name, time in seconds.items():
        print(f"| {name} | {time:.3f} | {batch_size / time:.2f} |")
    print(f"peak memory of a step here: {memory_here:.1f} GB; of all of these: {peak_memory():.1f} GB")


def command_line() -> None:
    """Reads the options and measures."""
    parser = arguments.ArgumentParser(__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=list(BACKBONES), default="resnet101_caffe", help="which")
    parser.add_argument("--crop", type=arguments.at_least(1), default=800, help="side of the crops")
    parser.add_argument("--batch-size", type=arguments.at_least(1), default=4, help="crops a step")
    parser.add_argument("--rounds", type=arguments.at_least(1), default=3, help="times that each way runs")
    parser.add_argument("--skip-original", action="store_true", help="leave the slow baseline out")
    options = parser.parse_args()
    if sys.platform != "linux":
        print("peak memory is in other units on this system", file=sys.stderr)
    main(**vars(options))


if __name__ == "__main__":
    sys.exit(run_command(command_line))
