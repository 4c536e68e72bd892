"""Folding of batch norms into the convolutions before them: the same function in fewer passes over memory."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Folds every batch norm into its convolution, in place.

    A batch norm belongs to the convolution that is registered right before it in the same module, which
    holds for every backbone here.

    Args:
        network: a network in evaluation mode.

    Returns:
        The network itself, its batch norms replaced by identities.

    Raises:
        ValueError: the network is in training mode, where a batch norm is no fixed function.
    """
    if network.training:
        raise ValueError("only a network in evaluation mode can be folded")
    for module in list(network.modules()):
        for (conv_name, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, name, nn.Identity())
    return network
