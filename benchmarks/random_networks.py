"""Networks of random weights, for which no figure but time, memory and agreement means anything."""

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
    """A backbone as published, in evaluation mode."""
    torch.manual_seed(0)
    return backbone_spec(name).features().eval()


@cache
def folded_backbone(name: str) -> nn.Module:
    """The same, as the evaluation runs it."""
    return folded(plain_backbone(name))


class Head(NamedTuple):
    """The modules behind a backbone."""

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
    """Return the evaluation's network for a backbone, with given layers in place of the backbone's.

    Args:
        name: the backbone.
        layers: the layers.
        parts: attention and whitening, those of `head` if not given.
    """
    spec, parts = backbone_spec(name), head(name) if parts is None else parts
    backbone = Backbone(layers, spec.preprocessing(), spec.channels, spec.stride)
    pooling = RegionalAttention(5, spec.stride, parts.attention)
    return RetrievalNetwork(backbone, [pooling], parts.whitening).eval()


def folded(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone without its batch norms, in channels_last."""
    return fold_batch_norms(copy.deepcopy(backbone)).to(memory_format=torch.channels_last)


@torch.no_grad()
def settle(backbone: nn.Module, images: Tensor) -> nn.Module:
    """Makes a backbone of random weights as calm as a trained one, which it is not by itself.

    Rounding to 8 bits grows from layer to layer of random filters until descriptors differ by some percent.
    It does not where a block adds little to what it was given, where most activations are not cut off, and
    where the batch norms have the statistics of some images, (N, 3, H, W), which takes one pass. So what is
    checked with it says that two devices agree, not what rounding does to trained weights.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.ones_(norm.bias)
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all that was seen, not a trailing one
        norm.train()
    for block in backbone.modules():
        if isinstance(block, Bottleneck | InvertedResidual):
            last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
            nn.init.constant_(last.weight, 0.2)
            nn.init.zeros_(last.bias)
    backbone(images)
    return backbone.eval()
