"""Effects of the options of the evaluation, compared with descriptors computed by hand."""

import json

import numpy as np
import pytest
import torch
from conftest import draw_image, write_query
from helpers import unit
from PIL import Image

import Measure_OxfordParis
from models.backbones.efficientnet_lite import EfficientNetLiteFeatures
from models.backbones.registry import BACKBONES
from utils.program.run_command import run_command
from utils.weights.networks import load_backbone

CHANNELS = 1280
FULL = (slice(None), slice(None))

# The regions of 128 x 96 pixels on a map of 4 x 3 cells, as (rows, columns). Level 1 is a square of 96 that
# starts at column 0 or 32: cells 0 to round(95 / 32) = 3 or round(32 / 32) = 1 to 3. Level 2 is one of 64
# that starts at columns 0, 32 and 64 and rows 0 and 32.
LEVEL_1 = [FULL, (slice(None), slice(1, 4))]
LEVEL_2 = [
    (rows, columns)
    for rows in (slice(0, 3), slice(1, 3))
    for columns in (slice(0, 3), slice(1, 4), slice(2, 4))
]
REGIONS = {1: LEVEL_1, 2: LEVEL_1 + LEVEL_2}


@pytest.fixture
def command(dataset, tmp_path, capsys):
    """A function that evaluates the tiny data set with options and returns status and errors."""

    def run(*options):
        words = ["--datasets-dir", tmp_path / "data", "--weights-dir", tmp_path / "weights"]
        words += ["--dataset", "Tiny", "--backbone", "efficientnet_lite0"]
        words += ["--device", "cpu", "--workers", "0", "--output", tmp_path / "out", *options]
        status = run_command(lambda: Measure_OxfordParis.command_line([str(word) for word in words]))
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def evaluate(command, tmp_path):
    """A function that evaluates with a line of options and returns results.json and descriptors.npz."""

    def run(options):
        status, err = command(*options.split())
        assert status == 0, err
        with np.load(tmp_path / "out" / "descriptors.npz") as arrays:
            return json.loads((tmp_path / "out" / "results.json").read_text()), dict(arrays)

    return run


@pytest.fixture
def image(dataset):
    """An image of 128 x 96 pixels in the data set, which reaches the network unchanged if S is 128."""
    draw_image(dataset / "jpg" / "image.png", seed=4, size=(128, 96))
    return np.array(Image.open(dataset / "jpg" / "image.png"))


@pytest.fixture
def describe_image(image, evaluate):
    """A function that returns the descriptor of `image` with a line of options."""

    def run(options):
        _, arrays = evaluate(options)
        return arrays["descriptors"][arrays["names"].tolist().index("image")]

    return run


@pytest.fixture(scope="module")
def feature_map():
    """A function from pixels (H, W, 3) to the feature map (1280, h, w) of the embedded backbone."""
    network = load_backbone(BACKBONES["efficientnet_lite0"], None)

    @torch.inference_mode()
    def run(pixels):
        images = (torch.from_numpy(pixels.astype(np.float32)) - 127) / 128
        return network(images.permute(2, 0, 1).unsqueeze(0))[0].numpy()

    return run


@pytest.fixture
def head(tmp_path):
    """A random attention head in the weights folder, as arrays by parameter."""
    rng = np.random.default_rng(5)
    shapes = {"conv_att_1.weight": (64, 2 * CHANNELS, 1), "conv_att_1.bias": (64,)}
    shapes |= {"conv_att_2.weight": (1, 64, 1), "conv_att_2.bias": (1,)}
    state = {name: (0.2 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    folder = tmp_path / "weights" / "efficientnet_lite0"
    folder.mkdir(parents=True)
    torch.save(
        {name: torch.from_numpy(value) for name, value in state.items()},
        folder / "ContextAwareRegionalAttention_weights.pth",
    )
    return state


@pytest.fixture
def pca(tmp_path):
    """A random PCA to 8 dimensions in the weights folder: components and negative mean."""
    rng = np.random.default_rng(6)
    components = rng.standard_normal((8, CHANNELS)).astype(np.float32)
    negative_mean = -rng.random(CHANNELS, np.float32)
    folder = tmp_path / "weights" / "efficientnet_lite0"
    folder.mkdir(parents=True)
    np.save(folder / "pca_components.npy", components)
    np.save(folder / "pca_mean.npy", negative_mean)
    return components, negative_mean


def region_maxima(features, regions):
    return np.stack([features[:, rows, columns].max((1, 2)) for rows, columns in regions])


def softplus(x):
    return np.log1p(np.exp(x))


def attention_by_hand(features, regions, head, activation):
    means = [features[:, rows, columns].mean((1, 2)) for rows, columns in regions]
    both = np.stack([np.concatenate([mean, features.mean((1, 2))]) for mean in means])
    hidden = activation(both @ head["conv_att_1.weight"][:, :, 0].T + head["conv_att_1.bias"])
    return softplus(hidden @ head["conv_att_2.weight"][0, :, 0] + head["conv_att_2.bias"])


def same(actual, expected):
    """Return whether two descriptors are equal up to rounding."""
    return actual.shape == expected.shape and np.abs(actual - expected).max() < 1e-5


def test_mac_is_the_maximum_of_the_map(describe_image, image, feature_map):
    actual = describe_image("--pooling mac --no-whiten --S 128")
    assert same(actual, unit(region_maxima(feature_map(image), [FULL])[0]))


def gem(cells, p):
    return (np.maximum(cells.astype(np.float64), 1e-6) ** p).mean((1, 2)) ** (1 / p)


def test_spoc_is_the_mean_of_the_map(describe_image, image, feature_map):
    actual = describe_image("--pooling spoc --no-whiten --S 128")
    assert same(actual, unit(feature_map(image).mean((1, 2))))


@pytest.mark.parametrize(("option", "p"), [("", 3), ("--gem-p 5.5", 5.5)])
def test_gem_is_the_generalised_mean_of_the_map(describe_image, image, feature_map, option, p):
    actual = describe_image(f"--pooling gem --no-whiten --S 128 {option}")
    assert same(actual, unit(gem(feature_map(image), p)))
    assert not same(actual, unit(gem(feature_map(image), 4)))


@pytest.mark.parametrize(("option", "p"), [("", 3), ("--gem-p 5.5", 5.5)])
def test_rgem_is_the_mean_of_the_generalised_means_of_regions(describe_image, image, feature_map, option, p):
    actual = describe_image(f"--pooling rgem --no-whiten --S 128 --L 2 {option}")
    features = feature_map(image)
    regions = np.stack([gem(features[:, rows, columns], p) for rows, columns in REGIONS[2]])
    assert same(actual, unit(unit(regions).mean(0)))
    assert not same(actual, unit(unit(region_maxima(features, REGIONS[2])).mean(0)))


@pytest.mark.parametrize("levels", REGIONS)
def test_l_is_the_number_of_levels_of_rmac(describe_image, image, feature_map, levels):
    actual = describe_image(f"--pooling rmac --no-whiten --S 128 --L {levels}")
    features = feature_map(image)
    by_levels = {
        count: unit(unit(region_maxima(features, regions)).mean(0)) for count, regions in REGIONS.items()
    }
    assert same(actual, by_levels[levels])
    assert not same(by_levels[1], by_levels[2])
    assert not same(actual, unit(region_maxima(features, [FULL])[0]))


@pytest.mark.parametrize(("activation", "function"), [("tanh", np.tanh), ("softplus", softplus)])
def test_the_attention_heads_weights_and_activation_are_used(
    describe_image, image, feature_map, head, activation, function
):
    actual = describe_image(f"--pooling ra --no-whiten --S 128 --L 2 --activation {activation}")
    features = feature_map(image)
    regions = unit(region_maxima(features, REGIONS[2]))
    weights = attention_by_hand(features, REGIONS[2], head, function)
    assert same(actual, unit(weights @ regions))
    other = attention_by_hand(features, REGIONS[2], head, {"tanh": softplus, "softplus": np.tanh}[activation])
    assert not same(actual, unit(other @ regions))
    assert not same(actual, unit(regions.mean(0)))


def test_tanh_regional_attention_of_five_levels_at_the_side_of_the_backbone_is_the_default(
    evaluate, dataset, head
):
    for seed, name in enumerate("abcd"):
        draw_image(dataset / "jpg" / f"{name}.png", seed, size=(64, 8))  # flat, to save time
    results, arrays = evaluate("--no-whiten")
    settings = results["settings"]
    assert [settings[name] for name in ("pooling", "activation", "L", "S", "qe")] == [
        "ra",
        "tanh",
        5,
        512,
        5,
    ]
    _, given = evaluate("--no-whiten --pooling ra --activation tanh --L 5 --S 512")
    assert same(given["descriptors"], arrays["descriptors"])


@pytest.mark.parametrize(("pooling", "regions"), [("mac", [FULL]), ("rmac", REGIONS[2])])
def test_regions_are_whitened_by_the_files_unless_no_whiten_is_given(
    describe_image, image, feature_map, pca, pooling, regions
):
    components, negative_mean = pca
    actual = describe_image(f"--pooling {pooling} --S 128 --L 2")
    maxima = region_maxima(feature_map(image), regions)
    whitened = unit(np.stack([components @ (vector + negative_mean) for vector in maxima]))
    assert actual.shape == (8,)
    assert same(actual, unit(whitened.mean(0)))
    plain = describe_image(f"--pooling {pooling} --S 128 --L 2 --no-whiten")
    assert same(plain, unit(unit(maxima).mean(0)))


@pytest.mark.parametrize(("longer_side", "step"), [(128, 1), (64, 2), (32, 4)])
def test_s_is_the_longer_side_of_what_the_network_sees(describe_image, image, feature_map, longer_side, step):
    # The image consists of squares of 8 pixels, which are squares at half and a quarter of the size, too.
    actual = describe_image(f"--pooling mac --no-whiten --S {longer_side}")
    features = feature_map(np.ascontiguousarray(image[::step, ::step]))
    assert same(actual, unit(features.max((1, 2))))


def test_queries_are_described_inside_their_boxes(evaluate, image, dataset, feature_map):
    write_query(dataset, "q_2", "image 32 0 128 64", good="a")
    _, arrays = evaluate("--pooling mac --no-whiten --S 128")
    actual = arrays["query_descriptors"][arrays["query_names"].tolist().index("q_2")]
    assert same(actual, unit(feature_map(image[0:64, 32:128]).max((1, 2))))


def precision_of_one(rank):
    """Return the average precision of one positive: precision is 0 before it and 1 / (rank + 1) at it."""
    return 1.0 if rank == 0 else 1 / (rank + 1) / 2


def test_expansion_searches_with_the_mean_of_the_query_and_qe_images(evaluate, dataset):
    for seed, name in enumerate("efghijkl", start=10):
        draw_image(dataset / "jpg" / f"{name}.png", seed)
    # A query per image, all with one box: their scores determine the rank of every image.
    names = list("abcdefghijkl")
    for name in names:
        write_query(dataset, f"only_{name}", "a 0 0 40 40", good=name)
    rankings = {}
    for count in (1, 2, 5):
        results, arrays = evaluate(f"--pooling mac --no-whiten --S 64 --qe {count}")
        assert arrays["names"].tolist() == names
        database = arrays["descriptors"].astype(np.float64)
        query = arrays["query_descriptors"][arrays["query_names"].tolist().index("only_a")].astype(np.float64)
        plain = np.argsort(-database @ query).tolist()
        expanded = unit(np.mean([query, *database[plain[:count]]], axis=0))
        again = np.argsort(-database @ expanded).tolist()
        for key, ranking in (("AP", plain), ("AP_query_expansion", again)):
            for rank, image in enumerate(ranking):
                assert results[key][f"only_{names[image]}"] == pytest.approx(precision_of_one(rank))
        rankings[count] = again
        assert again != plain
    assert rankings[1] != rankings[2] != rankings[5] != rankings[1]


@pytest.mark.parametrize(("box", "S"), [("70 0 90 40", "64"), ("0 0 1 40", "16")])
def test_boxes_are_checked_before_any_image_is_decoded(command, dataset, tmp_path, monkeypatch, box, S):
    # The second box has a pixel in the image of 64 x 48 pixels, but none where S is 16.
    write_query(dataset, "q_2", f"b {box}", good="a")
    for function in ("Measure_OxfordParis.describe", "utils.images.loading.read_image"):
        monkeypatch.setattr(function, lambda *arguments, **options: pytest.fail("an image is decoded"))
    status, err = command("--pooling", "mac", "--no-whiten", "--S", S)
    assert status == 2
    assert err.startswith(f"error: query q_2: the box {box} has no pixel inside")
    assert "b.png" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_whose_descriptor_is_not_finite_is_named(command, dataset, monkeypatch, value):
    # The network fails on c, which has one colour and is the third image of its batch.
    Image.new("RGB", (64, 48), (255, 255, 255)).save(dataset / "jpg" / "c.png")
    forward = EfficientNetLiteFeatures.forward

    def fail_on_flat_images(self, images):
        flat = images.amin((1, 2, 3)) == images.amax((1, 2, 3))
        return torch.where(flat[:, None, None, None], value, forward(self, images))

    monkeypatch.setattr(EfficientNetLiteFeatures, "forward", fail_on_flat_images)
    status, err = command("--pooling", "mac", "--no-whiten", "--S", "64", "--batch-size", "4")
    assert status == 2
    assert err.startswith("error: ")
    assert f"{dataset / 'jpg' / 'c.png'} is not finite" in err
