import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import draw_image
from helpers import backbone_of
from matplotlib import colormaps
from PIL import Image
from torch import nn

from models.backbones.registry import BACKBONES
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.regional_attention import RegionalAttention
from models.retrieval_network import RetrievalNetwork
from utils.errors import UserError
from utils.figures.heat_map import OPACITY, heat_map, image_attention
from utils.images.loading import InputImage

# The first and the last colour of matplotlib's published table of inferno.
DARKEST = np.array([0.001462, 0.000466, 0.013866])
LIGHTEST = np.array([0.988362, 0.998364, 0.644924])


def grey(level, height=8, width=12):
    return np.full((height, width, 3), level, np.uint8)


def test_the_least_weight_has_the_darkest_and_the_greatest_the_lightest_colour():
    drawn = np.asarray(heat_map(np.array([[0.2, 0.5]]), grey(100)))
    assert drawn.shape == (8, 12, 3)
    for column, color in ((0, DARKEST), (-1, LIGHTEST)):
        expected = OPACITY * 255 * color + (1 - OPACITY) * 100
        np.testing.assert_allclose(drawn[:, column], np.tile(expected, (8, 1)), atol=0.51)


def test_colours_of_greater_weights_are_lighter_in_grey_print():
    drawn = heat_map(np.linspace(3, 4, 100)[None], grey(128, 1, 100)).convert("L")
    levels = np.asarray(drawn, int)[0]
    assert (np.diff(levels) >= 0).all()
    assert levels[-1] - levels[0] > 120


def test_is_enlarged_as_torch_enlarges_bilinearly():
    heat = np.random.default_rng(0).random((3, 4))
    scaled = torch.from_numpy((heat - heat.min()) / (heat.max() - heat.min()))[None, None]
    fine = F.interpolate(scaled, size=(30, 50), mode="bilinear", align_corners=False)[0, 0].numpy()
    expected = 255 * OPACITY * colormaps["inferno"](fine)[..., :3]
    # different rounding may give neighbouring colours of the 256
    np.testing.assert_allclose(np.asarray(heat_map(heat, grey(0, 30, 50))), expected, atol=3)


@pytest.mark.parametrize("value", [0, 1, 0.3])
def test_a_map_of_one_value_has_the_middle_colour(value):
    drawn = np.asarray(heat_map(np.full((2, 3), value), grey(0)))
    middle = 255 * OPACITY * np.array(colormaps["inferno"](0.5)[:3])
    np.testing.assert_allclose(drawn, np.broadcast_to(middle, drawn.shape), atol=0.51)


def test_only_the_lightness_of_the_image_is_seen():
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 200
    as_grey = np.full((1, 1, 3), round(0.299 * 200), np.uint8)  # by ITU-R BT.601
    heat = np.ones((1, 1))
    drawn = np.asarray(heat_map(heat, red))
    assert drawn.shape == (1, 1, 3)
    assert drawn.tolist() == np.asarray(heat_map(heat, as_grey)).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        heat_map(np.array([[0, value]]), grey(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers, preprocessing = nn.Conv2d(3, 4, 32, stride=32), BACKBONES["resnet101"].preprocessing()
    pooling = RegionalAttention(5, 32, ContextAwareRegionalAttention(4))
    return RetrievalNetwork(backbone_of(layers, channels=4, preprocessing=preprocessing), [pooling]).eval()


def test_attention_of_an_image_file_is_inside_its_box(tmp_path, network):
    draw_image(tmp_path / "a.png", size=(256, 192))
    spec = BACKBONES["resnet101"]
    actual = image_attention(network, InputImage(tmp_path / "a.png", (64, 0, 256, 96)), 256)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))[0:96, 64:256].astype(np.float32)
    images = torch.from_numpy((pixels - np.float32(spec.mean)) / np.float32(spec.scale))
    with torch.inference_mode():
        expected = network.attention_map(images.permute(2, 0, 1)[None])[0]
    assert actual.shape == (3, 6)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_an_unreadable_image_is_an_error(tmp_path, network):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="decoded"):
        image_attention(network, InputImage(tmp_path / "a.png"), 256)
