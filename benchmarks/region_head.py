"""Time from a 2048 x 24 x 32 feature map with 70 regions to a descriptor, against the original's loop.

python -m benchmarks.region_head
"""

import torch
from torch import nn

from benchmarks import original_method
from benchmarks.random_networks import Head, network_of
from benchmarks.timing import machine, time_in_turn
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.whitening import Whitening

IMAGE_SIZE = (768, 1024)
ROUNDS = 20


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    features = torch.rand(1, 2048, 24, 32).to(memory_format=torch.channels_last)
    attention = ContextAwareRegionalAttention(2048)
    whitening = Whitening(torch.randn(2048, 2048) / 45, -torch.rand(2048))
    network = network_of("resnet101_caffe", nn.Identity(), Head(attention, whitening))
    planar = features.contiguous()  # the original's memory format

    def original() -> torch.Tensor:
        return original_method.describe_map(planar, IMAGE_SIZE, 5, attention, whitening)

    def ours() -> torch.Tensor:
        return network.describe_maps(features, IMAGE_SIZE)[0, 0]

    cosine = float(original() @ ours())
    seconds = time_in_turn({"the original's loop": original, "here": ours}, ROUNDS)
    print(machine())
    print("| region maxima, attention, whitening of one map | ms | against the original |")
    print("|---|---|---|")
    baseline = next(iter(seconds.values()))
    for name, time in seconds.items():
        print(f"| {name} | {1000 * time:.1f} | {baseline / time:.1f} |")
    print(f"cosine of the two descriptors: {cosine:.6f}")


if __name__ == "__main__":
    main()
