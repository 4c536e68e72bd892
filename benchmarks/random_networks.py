"""Networks of random weights, to measure time, memory and agreement between devices."""

import copy
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.backbones.backbone import Backbone
from models.backbones.batch_norm_folding import fold_batch_norms
from models.backbones.efficientnet_lite import InvertedResidual
from models.backbones.registry import backbone_spec
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.regional_attention import RegionalAttention
from models.retrieval_network import RetrievalNetwork
from models.whitening import Whitening


@cache
def plain_backbone(name: str) -> nn.Module:
    """Return a backbone as published, in evaluation mode."""
    torch.manual_seed(0)
    return backbone_spec(name).features().eval()


@cache
def folded_backbone(name: str) -> nn.Module:
    """Return a backbone as the evaluation runs it."""
    return folded(plain_backbone(name))


class Head(NamedTuple):
    """Attention and whitening, the modules that follow a backbone."""

    attention: ContextAwareRegionalAttention
    whitening: Whitening


@cache
def head(name: str) -> Head:
    """Return attention and whitening for a backbone."""
    torch.manual_seed(0)
    channels = backbone_spec(name).channels
    whitening = Whitening(torch.randn(channels, channels) / 45, -torch.rand(channels))
    return Head(ContextAwareRegionalAttention(channels), whitening)


def network_of(name: str, layers: nn.Module, parts: Head | None = None) -> RetrievalNetwork:
    """Return the evaluation's network for a backbone, with other layers.

    Args:
        name: of the backbone.
        layers: used instead of the backbone's.
        parts: attention and whitening; by default the result of `head`.
    """
    spec, parts = backbone_spec(name), head(name) if parts is None else parts
    backbone = Backbone(layers, spec.preprocessing(), spec.channels, spec.stride)
    pooling = RegionalAttention(5, spec.stride, parts.attention)
    return RetrievalNetwork(backbone, [pooling], parts.whitening).eval()


def folded(backbone: nn.Module) -> nn.Module:
    """Return a copy of a backbone with its batch norms folded, in channels_last."""
    return fold_batch_norms(copy.deepcopy(backbone)).to(memory_format=torch.channels_last)


@torch.no_grad()
def settle(backbone: nn.Module, images: Tensor) -> nn.Module:
    """Change a backbone of random weights so that rounding errors stay as small as in a trained one.

    With random filters, the error of rounding to 8 bits grows from layer to layer until descriptors differ by
    some percent. It stays small if each block adds little to its input, few activations are cut off, and the
    batch norms have the statistics of real input. Such a backbone shows that two devices agree, not what
    rounding does to trained weights.

    Args:
        backbone: changed in place, and returned.
        images: (N, 3, H, W), for the statistics of the batch norms.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.ones_(norm.bias)
        norm.reset_running_stats()
        norm.momentum = None  # a mean of all batches, not a moving one
        norm.train()
    for block in backbone.modules():
        if isinstance(block, Bottleneck | InvertedResidual):
            last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
            nn.init.constant_(last.weight, 0.2)
            nn.init.zeros_(last.bias)
    backbone(images)
    return backbone.eval()
