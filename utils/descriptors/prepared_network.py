"""Cache of the network that was loaded last."""

import json
from collections.abc import Mapping
from functools import lru_cache

import torch

from models.retrieval_network import RetrievalNetwork
from utils.options.shared import DescriptorOptions
from utils.weights.networks import load_network


def prepared_network(
    options: DescriptorOptions, settings: Mapping[str, object], device: torch.device
) -> RetrievalNetwork:
    """Return the network of some options with one pooling; equal arguments return the same object.

    Args:
        options: the options of the descriptors.
        settings: the `descriptor_settings` of the options. Its digests of the weights make changed weights
            load again.
        device: the device of the network.

    Raises:
        UserError: a file of weights is missing or unreadable.
    """
    return loaded_network(options, json.dumps(settings), device)


@lru_cache(maxsize=1)
def loaded_network(options: DescriptorOptions, settings: str, device: torch.device) -> RetrievalNetwork:
    """Load a network, unless it was loaded last. The settings are JSON."""
    return load_network(options, (options.pooling,), device)
