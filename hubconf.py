"""Networks for torch.hub: `torch.hub.load(folder_of_this_file, "efficientnet_lite0", source="local")`.

Each function here that has no underscore returns a network whose method `describe` turns images into
descriptors. The networks compute in float32 without TF32, with deterministic algorithms of cuDNN; loading one
sets this in torch for the entire program.
"""

# torch.hub lists every callable of this module as a network, and checks `dependencies` after importing it.
# Therefore the packages are imported inside the functions.
import pathlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.poolings.attention_head import Activation
    from models.poolings.registry import PoolingName
    from utils.descriptors.image_describer import ImageDescriber
    from utils.options.shared import Precision

dependencies = ["torch", "torchvision", "numpy", "PIL", "tqdm", "filelock", "numba"]


def regional_attention(
    backbone: str = "efficientnet_lite0",
    pooling: "PoolingName" = "ra",
    whiten: bool = True,
    weights_dir: str | pathlib.Path | None = None,
    S: int | None = None,
    *,
    L: int = 5,
    activation: "Activation" = "tanh",
    gem_p: float = 3.0,
    scales: tuple[float, ...] = (1.0,),
    precision: "Precision" = "float32",
    backbone_weights: str | pathlib.Path | None = None,
    device: str = "auto",
) -> "ImageDescriber":
    """Return a network that describes images.

    Args:
        backbone: a name as --backbone takes it, also `timm/` and the name of a network in timm.
        pooling: a name as --pooling takes it: `ra`, `rmac`, `rgem`, `mac`, `spoc` or `gem`.
        whiten: whiten the region vectors by the PCA of the backbone.
        weights_dir: the weights folder; the one beside this file if None.
        S: the longer side of the resized image, in pixels; the default of the backbone if None.
        L: the number of R-MAC levels.
        activation: the function between the layers of the attention head, `tanh` or `softplus`.
        gem_p: the exponent of `gem` and `rgem`.
        scales: factors by which each image is resized; the descriptors of all scales are averaged.
        precision: the number type of the backbone.
        backbone_weights: a state dict of the backbone; the published weights if None.
        device: `cpu`, `cuda`, `cuda:1`, ..., or `auto` for a GPU if available, else the CPU.

    Raises:
        UserError: a file of weights is missing or unreadable, or an argument is not valid.
        ImportError: other packages with the names `models` and `utils` are loaded.
    """
    _check_package_names()
    from utils.descriptors.image_describer import ImageDescriber
    from utils.device import choose_device
    from utils.file_names import PROJECT_WEIGHTS_DIR
    from utils.files.paths import optional_path
    from utils.options.shared import DescriptorOptions
    from utils.weights.networks import load_network

    options = DescriptorOptions(
        backbone=backbone,
        pooling=pooling,
        whiten=whiten,
        weights_dir=optional_path(weights_dir, "weights_dir") or PROJECT_WEIGHTS_DIR,
        S=S,
        L=L,
        activation=activation,
        gem_p=gem_p,
        scales=scales,
        precision=precision,
        backbone_weights=optional_path(backbone_weights, "backbone_weights"),
    )
    network = load_network(options, [pooling], choose_device(device))
    return ImageDescriber(network, options.longer_side)


def efficientnet_lite0(
    pooling: "PoolingName" = "ra", whiten: bool = True, S: int | None = None, device: str = "auto"
) -> "ImageDescriber":
    """Return EfficientNet-Lite0 with its attention and whitening, by default at S 512."""
    return regional_attention("efficientnet_lite0", pooling, whiten, S=S, device=device)


def efficientnet_lite2(
    pooling: "PoolingName" = "ra", whiten: bool = True, S: int | None = None, device: str = "auto"
) -> "ImageDescriber":
    """Return EfficientNet-Lite2 with its attention and whitening, by default at S 512."""
    return regional_attention("efficientnet_lite2", pooling, whiten, S=S, device=device)


def resnet101_caffe(
    pooling: "PoolingName" = "ra",
    whiten: bool = True,
    weights_dir: str | pathlib.Path | None = None,
    S: int | None = None,
    device: str = "auto",
) -> "ImageDescriber":
    """Return the authors' network, by default at S 1024; `Prepare_Datasets.py weights` gets its files."""
    return regional_attention("resnet101_caffe", pooling, whiten, weights_dir, S, device=device)


def _check_package_names() -> None:
    """Check that no package of another project with the name `models` or `utils` is loaded.

    Raises:
        ImportError: such a package is loaded, so that Python would not find the modules of this project.
    """
    here = pathlib.Path(__file__).resolve().parent
    for name in ("models", "utils"):
        loaded = sys.modules.get(name)
        folders = [pathlib.Path(folder).resolve() for folder in getattr(loaded, "__path__", [])]
        if loaded is not None and here / name not in folders:
            source = getattr(loaded, "__file__", None) or ", ".join(map(str, folders))
            raise ImportError(
                f"{here.name} has a package {name}, but another one is loaded already ({source}): "
                "rename that one, or load the network in a program that does not import it"
            )
