"""Images per second of training, compared with the original method and with the backbone's forward alone.

Weights and crops are random. The original method loops over regions and differentiates through the backbone.

    python -m benchmarks.training
"""

import copy
import resource
import sys

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.original_method import pooled_regions
from benchmarks.timing import machine, time_in_turn
from models.attention_classifier import AttentionClassifier, RegionFeatures
from models.backbones.backbone import Backbone
from models.backbones.batch_norm_folding import fold_batch_norms
from models.backbones.registry import backbone_spec
from models.poolings.attention_head import ContextAwareRegionalAttention
from utils.options.options_class import option, options_class, redefault
from utils.options.parser import parse_options
from utils.options.shared import COUNTS, BackboneOptions
from utils.program.run_command import run_command
from utils.training.batches import extract_regions

CLASSES = 1000
LEVELS = 5


def train_on(model: AttentionClassifier, features: RegionFeatures, classes: torch.Tensor) -> None:
    """Run one mini-batch forward and backward through the head."""
    F.cross_entropy(model(features), classes).backward()
    model.zero_grad()


@options_class
class TrainingOptions:
    """Options of the measurement."""

    title = "measurement"

    backbone: str = redefault(BackboneOptions, "backbone", "resnet101_caffe")
    crop: int = option(default=800, help="side of the crops", valid=COUNTS)
    batch_size: int = option(default=4, help="crops per step", valid=COUNTS)
    rounds: int = option(default=3, help="runs of each step", valid=COUNTS)
    skip_original: bool = option(default=False, help="leave the slow baseline out")


def main(options: TrainingOptions) -> None:
    """Print the table."""
    torch.manual_seed(0)
    crop, batch_size, rounds = options.crop, options.batch_size, options.rounds
    spec = backbone_spec(options.backbone)
    plain = spec.features().eval()
    layers = fold_batch_norms(copy.deepcopy(plain)).requires_grad_(False)
    layers = layers.to(memory_format=torch.channels_last)
    folded = Backbone(layers, spec.preprocessing(), spec.channels, spec.stride)
    fc = nn.Linear(spec.channels, CLASSES).requires_grad_(False)
    model = AttentionClassifier(ContextAwareRegionalAttention(spec.channels), fc.weight, fc.bias)
    pixels = torch.randint(0, 256, (batch_size, crop, crop, 3), dtype=torch.uint8)
    classes = torch.randint(0, CLASSES, (batch_size,))
    features = extract_regions(folded, LEVELS, pixels)

    def original() -> None:
        images = spec.preprocessing()(pixels).contiguous()
        pooled = pooled_regions(plain(images), (crop, crop), LEVELS, model.attention)
        F.cross_entropy(fc(pooled), classes).backward()
        plain.zero_grad()
        model.zero_grad()

    @torch.inference_mode()
    def forward(network: nn.Module) -> None:
        network(spec.preprocessing()(pixels))

    def step() -> None:
        train_on(model, extract_regions(folded, LEVELS, pixels), classes)

    def peak_memory() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    step()
    step()
    memory_here = peak_memory()
    functions = {} if options.skip_original else {"original": original}
    functions |= {
        "backbone's forward alone, as published": lambda: forward(plain),
        "backbone's forward alone, folded, channels_last": lambda: forward(folded),
        "a step here": step,
        "a step from precomputed features": lambda: train_on(model, features, classes),
    }
    seconds = time_in_turn(functions, rounds)
    print(machine())
    print(f"{options.backbone}, a step of {batch_size} crops of {crop}, median of {rounds} rounds")
    print("| | seconds per step | images/s |")
    print("|---|---|---|")
    for name, time in seconds.items():
        print(f"| {name} | {time:.3f} | {batch_size / time:.2f} |")
    print(f"peak memory of a step here: {memory_here:.1f} GB; of all: {peak_memory():.1f} GB")


def command_line() -> None:
    """Read the options and measure."""
    options = parse_options(TrainingOptions, __doc__.splitlines()[0])
    if sys.platform != "linux":
        print("peak memory is in other units on this system", file=sys.stderr)
    main(options)


if __name__ == "__main__":
    sys.exit(run_command(command_line))
