"""A network ready to describe pictures, by its options; the last one is kept for the next call."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from models.attention import Activation
from models.retrieval_network import Pooling, RetrievalNetwork
from utils.device import PRECISIONS, choose_device, suitable_batch_size, suitable_workers
from utils.processes import Ranks
from utils.weights.networks import load_network


def prepare(
    options: Mapping[str, object], settings: Mapping[str, object]
) -> tuple[RetrievalNetwork, dict[str, object]]:
    """The network that some options tell of, and how to describe pictures by it.

    Args:
        options: values by the options' names.
        settings: of the descriptors, with digests of the weights: those that have changed are read anew.

    Returns:
        The network, and the further arguments of `utils.descriptors.describe.describe`.

    Raises:
        UserError: a file of weights is missing or damaged, or there is no such device.
    """
    torch_device = choose_device(str(options["device"]))
    batch_size, workers = options["batch_size"], options["workers"]
    network = loaded_network(
        str(options["backbone"]),
        Path(str(options["weights_dir"])),
        options["pooling"],
        options["whiten"],
        options["L"],
        options["activation"],
        tuple(options["scales"]),
        torch_device,
        str(options["precision"]),
        json.dumps(settings),
    )
    return network, {
        "longer_side": options["S"],
        "batch_size": suitable_batch_size(torch_device) if batch_size is None else batch_size,
        "workers": suitable_workers(torch_device) if workers is None else workers,
        "ranks": Ranks(0, 1, torch_device),
    }


@lru_cache(maxsize=1)
def loaded_network(
    backbone: str,
    weights_dir: Path,
    pooling: Pooling,
    whiten: bool,
    levels: int,
    activation: Activation,
    scales: tuple[float, ...],
    device: torch.device,
    precision: str,
    settings: str,
) -> RetrievalNetwork:
    """The network of `load_network`, the last one kept for as long as `settings` are the same."""
    return load_network(
        backbone,
        weights_dir=weights_dir,
        pooling=pooling,
        levels=levels,
        whiten=whiten,
        activation=activation,
        scales=scales,
        device=device,
        dtype=PRECISIONS[precision],
    )
