"""Settings that a descriptor depends on; descriptors with different settings must not be mixed."""

from collections.abc import Sequence

import torch

from models.poolings.registry import POOLINGS, PoolingName, need_attention, options_of
from utils.file_names import ATTENTION_WEIGHTS, PCA_COMPONENTS, PCA_MEAN, weights_folder
from utils.files.digests import remembered_digest
from utils.options.options_class import declared_options
from utils.options.saved_options import to_json
from utils.options.shared import DescriptorOptions
from utils.saved_settings import METHOD, METHOD_VERSION
from utils.weights.backbone_weights import backbone_weights_file, read_backbone_weights
from utils.weights.state_dicts import digest, read_state_dict, read_weights_array


def descriptor_settings(options: DescriptorOptions, poolings: Sequence[PoolingName]) -> dict[str, object]:
    """Return the options that descriptors depend on and digests of the weights, for JSON.

    Digests are computed from the published values, before folding and rounding, and do not depend on the
    machine; they are remembered until a file changes. Options that the poolings do not use are left out.

    Args:
        options: the options of the descriptors; `options.pooling` is ignored.
        poolings: the names of the poolings, whose descriptors are concatenated.

    Raises:
        UserError: a file of weights is missing or unreadable.
    """
    saved = to_json(options)
    binding = {one.name for one in declared_options(DescriptorOptions) if one.binding}
    unused = options_of(POOLINGS) - options_of(poolings)
    settings = {METHOD: METHOD_VERSION} | {name: saved[name] for name in saved if name in binding - unused}
    settings["S"] = options.longer_side
    settings["pooling"] = ",".join(poolings)
    folder = weights_folder(options.weights_dir, options.backbone)
    settings["backbone weights"] = _backbone_digest(options)
    if need_attention(poolings):
        path = folder / ATTENTION_WEIGHTS
        settings["attention weights"] = remembered_digest(
            [path], "attention weights", lambda: digest(read_state_dict(path))
        )
    if options.whiten:
        paths = [folder / name for name in (PCA_COMPONENTS, PCA_MEAN)]
        settings["whitening"] = remembered_digest(
            paths,
            "whitening",
            lambda: digest({path.name: torch.from_numpy(read_weights_array(path)) for path in paths}),
        )
    return settings


def _backbone_digest(options: DescriptorOptions) -> str:
    """Return the digest of the weights of the backbone, including its classifier."""
    source = options.spec, options.weights_dir, options.backbone_weights

    def compute() -> str:
        return digest(read_backbone_weights(*source)[0])

    file = backbone_weights_file(*source)
    # The digest has the names of the parameters in the layers, which depend on the backbone.
    return compute() if file is None else remembered_digest([file], f"weights of {options.backbone}", compute)
