"""A network ready to describe images, by its options; the last one is kept for the next call."""

from functools import lru_cache

import torch

from models.retrieval_network import RetrievalNetwork
from utils.options.shared import DescriptorOptions
from utils.weights.networks import load_network


@lru_cache(maxsize=1)
def prepared_network(options: DescriptorOptions, settings: str, device: torch.device) -> RetrievalNetwork:
    """Return the network of some options with one pooling; equal arguments give the same network.

    Args:
        options: the options of the descriptors.
        settings: their `descriptor_settings` as JSON, with digests of the weights: changed weights are read
            again.
        device: where to compute.

    Raises:
        UserError: a file of weights is missing or unreadable.
    """
    return load_network(options, (options.pooling,), device)
