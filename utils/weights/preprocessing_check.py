"""A check that the preprocessing of images and the strides of a network fit its weights.

Channel order, mean and scale differ between the libraries that weights come from. With the wrong ones, a
network still describes images, only worse. The check compares the inputs of the first batch norms with their
stored statistics, for the preprocessing of the backbone and for other common ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from models.backbones.preprocessing import ChannelOrder, Preprocessing
from models.backbones.registry import BACKBONES
from models.backbones.spec import BackboneSpec
from utils.weights.divergence import (
    Statistics,
    divergence_ratio,
    input_statistics,
    mean_divergence,
    movable_strides,
    stored_statistics,
    strides_moved,
)

FIRST_LAYERS = 4
"""Number of batch norms that are compared, in the order of execution."""

CLEARLY = 1.5
"""Factor between two divergences from which the larger one shows a wrong mean or scale."""

ORDER_CLEARLY = 2.0
"""Factor, where the two channel orders differ, from which one is taken for the wrong one."""

STRIDES_CLEARLY = 1.2
"""Factor between the divergences over all layers from which strides are taken for the wrong ones."""

PHOTOGRAPHS = 0.05
"""Divergence up to which images are like the images of the training, so that they decide the order."""

PLAUSIBLE = 0.25
"""Divergence up to which another preprocessing is taken for the right one."""

LARGE = 0.5
"""Divergence above which a preprocessing does not fit even if no other one does."""

Triple = tuple[float, float, float]


class Setting(NamedTuple):
    """A preprocessing; mean and scale are of red, green and blue, in this order."""

    channel_order: ChannelOrder
    mean: Triple
    scale: Triple

    @classmethod
    def of(cls, spec: BackboneSpec) -> "Setting":
        """Return the preprocessing of a backbone."""
        step = 1 if spec.channel_order == "RGB" else -1
        red, green, blue = spec.mean[::step]
        red_scale, green_scale, blue_scale = spec.scale[::step]
        return cls(spec.channel_order, (red, green, blue), (red_scale, green_scale, blue_scale))

    @property
    def reversed_order(self) -> "Setting":
        """The same mean and scale of each colour, with the channels in reversed order."""
        return self._replace(channel_order="BGR" if self.channel_order == "RGB" else "RGB")

    def preprocessing(self) -> Preprocessing:
        """Return the module that preprocesses pixels."""
        return Preprocessing(self.channel_order, self._ordered(self.mean), self._ordered(self.scale))

    def _ordered(self, values: Triple) -> Triple:
        red, green, blue = values
        return values if self.channel_order == "RGB" else (blue, green, red)

    def __str__(self) -> str:
        mean, scale = _numbers(self._ordered(self.mean)), _numbers(self._ordered(self.scale))
        return f"{self.channel_order}, minus {mean}, divided by {scale}"


def _numbers(values: Triple) -> str:
    return " ".join(f"{value:.4g}" for value in (values[:1] if len(set(values)) == 1 else values))


def common_settings(channel_order: ChannelOrder) -> list[Setting]:
    """Return a channel order with the mean and scale of each backbone, for 0 to 1, and for 0 to 255."""
    settings = [Setting.of(spec) for spec in BACKBONES.values()]
    settings += [Setting("RGB", (0.0, 0.0, 0.0), (scale, scale, scale)) for scale in (255.0, 1.0)]
    return list(dict.fromkeys(setting._replace(channel_order=channel_order) for setting in settings))


@dataclass(frozen=True)
class PreprocessingCheck:
    """How well the preprocessing of a backbone, others, and other strides fit its weights."""

    current: Setting
    """The preprocessing of the backbone."""
    divergences: Mapping[Setting, float]
    """Preprocessings, the current one included, to the divergence of the first batch norms' inputs."""
    fitting: Setting
    """The preprocessing that fits; the current one unless another fits clearly better."""
    is_order_decided: bool
    """False if the images cannot decide between the two channel orders."""
    strides: Mapping[str, float]
    """Blocks whose stride was moved to their other convolution, as text, to the divergence over all batch
    norms; the empty text for the network as it is. Empty if no strides were tried."""

    def problem(self) -> str | None:
        """Return what does not fit the weights, for the end of a sentence on them; None if all fits."""
        divergence, least = self.divergences[self.current], self.divergences[self.fitting]
        if self.fitting != self.current:
            return (
                f"{self.current} does not fit them (divergence {divergence:.3f}), {self.fitting} does "
                f"({least:.3f}): convert the first convolution, or name a backbone with this preprocessing"
            )
        if not divergence <= LARGE:
            return (
                f"no common preprocessing fits them (divergence {divergence:.3f}): they may be of another "
                "network, or the images are unlike those of its training"
            )
        if self.strides:
            best = min(self.strides, key=lambda blocks: self.strides[blocks])
            if self.strides[""] > STRIDES_CLEARLY * self.strides[best]:
                return (
                    f"they fit better (divergence {self.strides[best]:.3f}, not {self.strides['']:.3f}) with "
                    f"the stride of {best} in the other convolution, as resnet101 and resnet101_caffe "
                    "differ: name another backbone"
                )
        return None


def check_preprocessing(
    features: nn.Module, spec: BackboneSpec, images: Sequence[Tensor], *, quick: bool
) -> PreprocessingCheck | None:
    """Compare the preprocessing of a backbone with others.

    Args:
        features: its layers on the CPU in evaluation mode, with batch norms that are not folded.
        spec: its description.
        images: (H, W, 3) uint8, RGB.
        quick: try other means and scales only if the current ones fit badly, and no other strides.

    Returns:
        The result, or None for a network without batch norms that hold statistics.
    """
    stored = stored_statistics(features)
    if not stored:
        return None
    inputs: dict[Setting, dict[str, Statistics]] = {}
    divergences: dict[Setting, float] = {}

    def add(setting: Setting) -> None:
        for one in (setting, setting.reversed_order):
            if one not in inputs:
                inputs[one] = input_statistics(features, images, one.preprocessing(), FIRST_LAYERS)
                divergences[one] = mean_divergence(inputs[one], stored)

    current = fitting = Setting.of(spec)
    add(current)
    if not quick or divergences[current] > PHOTOGRAPHS:
        for setting in common_settings(current.channel_order):
            add(setting)

    def either_order(setting: Setting) -> float:
        return min(divergences[setting], divergences[setting.reversed_order])

    best = min(divergences, key=either_order)._replace(channel_order=current.channel_order)
    if either_order(best) <= min(PLAUSIBLE, either_order(current) / CLEARLY):
        fitting = best
    ratio = divergence_ratio(inputs[fitting], inputs[fitting.reversed_order], stored)
    is_photographs = either_order(fitting) <= PHOTOGRAPHS
    if is_photographs and ratio < 1 / ORDER_CLEARLY:
        fitting = fitting.reversed_order
    is_order_decided = is_photographs and not 1 / ORDER_CLEARLY <= ratio <= ORDER_CLEARLY
    strides = {} if quick else stride_divergences(features, images[::2], fitting)
    return PreprocessingCheck(current, divergences, fitting, is_order_decided, strides)


def stride_divergences(features: nn.Module, images: Sequence[Tensor], setting: Setting) -> dict[str, float]:
    """Return the divergence over all batch norms with strides as they are and moved, by the blocks' names."""
    stored, pairs = stored_statistics(features), movable_strides(features)
    moves = {"": list[str](), **{name: [name] for name in pairs}}
    if len(pairs) > 1:
        moves[f"all blocks ({', '.join(pairs)})"] = list(pairs)
    divergences = {}
    for text, names in moves.items():
        with strides_moved([pairs[name] for name in names]):
            inputs = input_statistics(features, images, setting.preprocessing())
        divergences[text] = mean_divergence(inputs, stored)
    return divergences if pairs else {}
