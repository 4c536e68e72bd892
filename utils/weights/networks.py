"""Networks built from their weight files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.backbones.backbone import Backbone
from models.backbones.batch_norm_folding import fold_batch_norms
from models.backbones.efficientnet_lite import EfficientNetLiteFeatures
from models.backbones.spec import BackboneSpec, TimmWeights, WeightsFile
from models.poolings.attention_head import Activation, ContextAwareRegionalAttention
from models.poolings.pooling import PoolingParts
from models.poolings.registry import POOLINGS, PoolingName, need_attention
from models.retrieval_network import RetrievalNetwork
from models.whitening import Whitening
from utils.device import PRECISIONS, suitable_memory_format
from utils.errors import UserError, advising
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN, weights_folder
from utils.files.digests import remembered_digest
from utils.options.shared import BackboneOptions, DescriptorOptions
from utils.weights.backbone_weights import backbone_weights_file, instructions, read_backbone_weights
from utils.weights.classifiers import Classifier, checked_classifier
from utils.weights.network_record import Network, check_backbone_digest, check_recorded_files
from utils.weights.state_dicts import fill, module_digest, read_state_dict, read_weights_array

WITHOUT_ATTENTION = "--pooling rmac"
WITHOUT_PCA = "--no-whiten"
"""Options with which the files of the attention head and of the PCA are not needed."""


def load_network(
    options: DescriptorOptions, poolings: Sequence[PoolingName], device: torch.device
) -> RetrievalNetwork:
    """Return a network with its weights, ready to describe images.

    Args:
        options: options of its descriptors; `options.pooling` is ignored.
        poolings: names of the poolings.
        device: device to compute on.

    Raises:
        UserError: a file is missing, unreadable or made for another network.
    """
    spec = options.spec
    needs_attention = need_attention(poolings)
    names = check_head_files(options, needs_attention=needs_attention, needs_pca=options.whiten)
    folder = weights_folder(options.weights_dir, options.backbone)
    record = check_recorded_files(
        folder, names, options.backbone, spec.channels, options.activation, options.L
    )
    backbone, head = load_backbone(spec, options.weights_dir, options.backbone_weights), None
    if record is not None:
        check_backbone_digest(folder, record, layers_digest(options, backbone))
    if needs_attention:
        head = load_attention(folder / ATTENTION_WEIGHTS, spec.channels, options.activation)
    parts = PoolingParts(options.L, spec.stride, options.gem_p, head)
    network = RetrievalNetwork(
        fold_backbone(backbone, options, device),
        [POOLINGS[name].build(parts) for name in poolings],
        load_whitening(folder, spec.channels, spec.is_nonnegative) if options.whiten else None,
        options.scales,
    )
    return network.eval().requires_grad_(False).to(device)


def check_head_files(options: BackboneOptions, *, needs_attention: bool, needs_pca: bool) -> set[str]:
    """Check that the files of the attention head and of the PCA exist, before any large file is read.

    Args:
        options: the backbone and the weights folder.
        needs_attention: whether the weights of the attention head are needed.
        needs_pca: whether the two files of the PCA are needed.

    Returns:
        The names of the files that are needed.

    Raises:
        UserError: a file is missing. The message names all missing files, how to get them, and the options
            with which they are not needed.
    """
    folder = weights_folder(options.weights_dir, options.backbone)
    needed = {ATTENTION_WEIGHTS: WITHOUT_ATTENTION} if needs_attention else {}
    if needs_pca:
        needed |= {PCA_COMPONENTS: WITHOUT_PCA, PCA_MEAN: WITHOUT_PCA}
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        instead = " ".join(dict.fromkeys(needed[name] for name in missing))
        source = options.spec.weights
        where = f" ({source.instructions})" if isinstance(source, WeightsFile) else ""
        files = " and ".join(str(folder / name) for name in missing)
        raise UserError(f"backbone {options.backbone} lacks {files}{where}; {instead} does without")
    return set(needed)


def load_backbone(spec: BackboneSpec, weights_dir: Path, file: Path | None = None) -> Backbone:
    """Return a backbone with its weights, in evaluation mode, on the CPU.

    Args:
        spec: description of the backbone.
        weights_dir: the weights folder.
        file: a state dict to use instead of the published weights.

    Raises:
        UserError: the weights are missing, unreadable or made for another network.
    """
    state, source = read_backbone_weights(spec, weights_dir, file)
    backbone = spec.build().eval()
    with advising(instructions(spec)):
        fill(backbone.features, state, source)
    return backbone


def identify_network(options: BackboneOptions, backbone: Backbone) -> Network:
    """Return the network of a backbone, by which network.json names it.

    Args:
        options: the name of the backbone.
        backbone: the backbone with its weights, before `fold_backbone` changes them.
    """
    return Network(options.backbone, backbone.channels, layers_digest(options, backbone))


def layers_digest(options: BackboneOptions, backbone: Backbone) -> str:
    """Return the digest of the weights of a backbone's layers; it is remembered until their file changes.

    Args:
        options: the name of the backbone, and the file of its weights.
        backbone: the backbone with its weights, before `fold_backbone` changes them.
    """
    file = backbone_weights_file(options.spec, options.weights_dir, options.backbone_weights)
    if file is None:
        return module_digest(backbone.features)
    return remembered_digest(
        [file], f"layers of {options.backbone}", lambda: module_digest(backbone.features)
    )


def given_backbone_digest(options: BackboneOptions, network: Network) -> str | None:
    """Return the digest of the weights given by --backbone-weights; None if not given.

    Saved work is bound to it: it can only be continued with the same weights.

    Args:
        options: whether weights were given.
        network: the network of the options.
    """
    return None if options.backbone_weights is None else network.backbone_digest


def fold_backbone(backbone: Backbone, options: BackboneOptions, device: torch.device) -> Backbone:
    """Return a backbone for inference on a device, in the number type of the options.

    Batch norms are folded into the convolutions before them, which makes the same function 1.4 times as
    fast on a CPU. Networks from timm are not folded, since some of them use a batch norm elsewhere.

    Args:
        backbone: the backbone with its weights, which is changed.
        options: its name and its number type. With bfloat16, which has 8 bits of mantissa, the layers that
            would lose most accuracy stay float32.
        device: device to compute on.
    """
    spec, dtype = options.spec, PRECISIONS[options.precision]
    backbone.requires_grad_(False)
    if not isinstance(spec.weights, TimmWeights):
        fold_batch_norms(backbone.features)
    features = backbone.features
    backbone.set_memory_format(suitable_memory_format(device, features))
    if dtype == torch.bfloat16 and isinstance(features, EfficientNetLiteFeatures):
        for part in features.fit_for_bfloat16():
            part.to(dtype)
    else:
        features.to(dtype)
    return backbone.to(device)


def load_classifier(options: BackboneOptions) -> Classifier:
    """Return the layer that classifies the backbone's K classes.

    Raises:
        UserError: the weights are missing or unreadable, or have no classifier.
    """
    spec = options.spec
    state, source = read_backbone_weights(spec, options.weights_dir, options.backbone_weights)
    if not isinstance(spec.weights, WeightsFile):
        return checked_classifier(state, spec.channels, source)
    with advising("the file in the authors' weights.tar has it"):
        return checked_classifier(state, spec.channels, source)


def load_attention(path: Path, channels: int, activation: Activation) -> ContextAwareRegionalAttention:
    """Return an attention head with the weights in a file.

    Args:
        path: a state dict of the head's four parameters.
        channels: C, the number of channels of the backbone.
        activation: the function between the layers, which the file does not contain.

    Raises:
        UserError: the file is missing, unreadable or made for another number of channels.
    """
    head = ContextAwareRegionalAttention(channels, activation)
    with advising(f"{WITHOUT_ATTENTION} does without"):
        fill(head, read_state_dict(path), str(path))
    return head


def load_whitening(folder: Path, channels: int, is_nonnegative: bool = True) -> Whitening:
    """Return the whitening in the two PCA files of a folder.

    Args:
        folder: the folder.
        channels: C, the number of channels of the backbone.
        is_nonnegative: whether the backbone's features are never negative; their mean is then not negative
            either.

    Raises:
        UserError: a file is missing, unreadable or made for another number of channels, or the file of the
            mean holds the mean with the wrong sign.
    """
    with advising(f"{WITHOUT_PCA} does without"):
        components = read_weights_array(folder / PCA_COMPONENTS)
        mean = read_weights_array(folder / PCA_MEAN)
        for name, array, expected in (
            (PCA_COMPONENTS, components, ("D", channels)),
            (PCA_MEAN, mean, (channels,)),
        ):
            if array.ndim != len(expected) or array.shape[-1] != channels or array.size == 0:
                wanted = " x ".join(str(side) for side in expected)
                actual = " x ".join(str(side) for side in array.shape)
                raise UserError(f"{folder / name} has shape {actual}; this backbone needs {wanted}")
        if not components.any(axis=1).all():
            raise UserError(f"{folder / PCA_COMPONENTS} is unreadable: a component is all zeros")
        if is_nonnegative and mean.sum(dtype=np.float64) > 0:
            raise UserError(
                f"{folder / PCA_MEAN} holds the mean, as scikit-learn's mean_, but must hold minus the mean: "
                "save -mean_ instead"
            )
    return Whitening(torch.from_numpy(components), torch.from_numpy(mean))
