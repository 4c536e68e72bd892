import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_image
from PIL import Image

import hubconf
import Search_Images
from utils.descriptors.image_describer import InvalidImageError
from utils.errors import UserError
from utils.images.loading import UnreadableImageError
from utils.options.shared import DescriptorOptions

ROOT = Path(__file__).parents[1]
S = 96
NETWORKS = ["efficientnet_lite0", "efficientnet_lite2", "regional_attention", "resnet101_caffe"]
OUTSIDE = ["cv2", "faiss", "jinja2", "matplotlib", "scipy", "sklearn", "tensorboard", "timm"]
"""Required packages that a network does not need."""

FORMATS = {
    "colour.png": ("RGB", {}),
    "grey.png": ("L", {}),
    "alpha.png": ("RGBA", {}),
    "palette.png": ("P", {}),
    "ink.tif": ("CMYK", {}),
    "deep.png": ("I;16", {}),
    "sideways.jpg": ("RGB", {"exif": 6}),
    "mirrored.tif": ("RGB", {"exif": 2}),
}


def load(name, **options):
    return torch.hub.load(str(ROOT), name, source="local", device="cpu", **options)


def as_program(code, folder, *words):
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def network():
    return load("efficientnet_lite0", S=S)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An image file per mode and orientation, of different images of three sizes."""
    folder = tmp_path_factory.mktemp("images")
    for seed, (name, (mode, options)) in enumerate(FORMATS.items()):
        draw_image(folder / "drawn.png", seed, [(96, 64), (64, 96), (120, 80)][seed % 3])
        image = Image.open(folder / "drawn.png")
        if mode == "I;16":
            image = Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 257)
        elif mode == "RGBA":
            image.putalpha(image.convert("L"))
        else:
            image = image.convert(mode)
        exif = Image.Exif()
        exif[0x112] = options.get("exif", 1)
        image.save(folder / name, exif=exif)
    return [folder / name for name in FORMATS]


@pytest.fixture(scope="module")
def expected(files):
    return Search_Images.describe(files, S=S, device="cpu", workers=0)


def test_torch_hub_lists_the_networks_alone(monkeypatch):
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_, **__: str(ROOT))
    assert torch.hub.list("owner/project") == NETWORKS


def test_images_of_pillow_are_described_as_their_files_to_the_bit(network, files, expected):
    actual = network.describe([Image.open(path) for path in files])
    assert (actual.dtype, actual.shape) == (np.float32, (len(files), 512))
    np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(actual, expected)
    assert len(np.unique(actual.round(4), axis=0)) == len(files)
    for path, row in zip(files, expected, strict=True):
        opened = Image.open(path)
        opened.load()
        np.testing.assert_array_equal(network.describe(opened), [row])


def test_paths_and_tensors_are_described_as_their_files_to_the_bit(network, files, expected):
    np.testing.assert_array_equal(network.describe(files), expected)
    np.testing.assert_array_equal(network.describe(str(files[0])), expected[:1])
    pixels = torch.from_numpy(np.array(Image.open(files[0]))).permute(2, 0, 1)
    np.testing.assert_array_equal(network.describe(pixels), expected[:1])
    np.testing.assert_array_equal(network.describe(pixels.contiguous()[None]), expected[:1])
    np.testing.assert_array_equal(network.describe([files[3], pixels]), expected[[3, 0]])
    flipped = np.array(Image.open(files[0]))[:, ::-1].transpose(2, 0, 1).copy()
    both = network.describe(torch.stack([pixels, torch.from_numpy(flipped)]))
    np.testing.assert_array_equal(both[:1], expected[:1])
    assert (both[0] != both[1]).any()


def test_search_images_describes_images_in_memory(files, expected):
    actual = Search_Images.describe([Image.open(path) for path in files], S=S, device="cpu", workers=0)
    np.testing.assert_array_equal(actual, expected)


def test_forward_describes_pixels_of_one_size(network, files, expected):
    with Image.open(files[0]) as image:
        assert max(image.size) == S
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    np.testing.assert_array_equal(network(pixels).numpy(), expected[:1])


@pytest.mark.parametrize(
    ("options", "settings", "width"),
    [
        ({"pooling": "rmac"}, {}, 512),
        ({"whiten": False, "scales": (1.0, 0.5)}, {}, 1280),
        ({"L": 2, "pooling": "rmac", "precision": "bfloat16"}, {}, 512),
        ({"pooling": "gem", "gem_p": 5}, {}, 512),
        ({"backbone": "efficientnet_lite2"}, {}, 512),
        ({"weights_dir": str(ROOT / "weights")}, {"weights_dir": ROOT / "weights"}, 512),
    ],
)
def test_the_general_network_takes_the_options_of_the_scripts(files, options, settings, width):
    actual = load("regional_attention", S=S, **options).describe(files[:2])
    expected = Search_Images.describe(files[:2], S=S, device="cpu", workers=0, **(options | settings))
    assert actual.shape == (2, width)
    np.testing.assert_array_equal(actual, expected)


def test_arguments_have_the_defaults_of_the_options():
    declared = DescriptorOptions()
    arguments = inspect.signature(hubconf.regional_attention).parameters
    for name in arguments.keys() - {"backbone", "weights_dir", "device"}:
        assert arguments[name].default == getattr(declared, name), name
    assert arguments["backbone"].default == Search_Images.IndexOptions.backbone


def test_the_activation_is_that_of_the_argument(files, expected, tmp_path):
    folder = tmp_path / "efficientnet_lite0"
    shutil.copytree(ROOT / "weights" / "efficientnet_lite0", folder)
    (folder / "network.json").unlink()  # the record of a head trained with tanh
    options = {"S": S, "weights_dir": tmp_path, "activation": "softplus"}
    actual = load("regional_attention", **options).describe(files)
    described = Search_Images.describe(files, device="cpu", workers=0, **options)
    np.testing.assert_array_equal(actual, described)
    assert (actual != expected).any()


def test_s_is_that_of_the_backbone_if_not_given():
    assert load("efficientnet_lite0").longer_side == 512
    assert load("efficientnet_lite2", pooling="mac").longer_side == 512


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images is empty: give at least one image"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "images is empty: give at least one image"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), "torch.uint8 with shape (1, 8, 8): give torch.uint8 with"),
        (
            torch.zeros(4, 8, 8, dtype=torch.uint8),
            "images[0] is a tensor of torch.uint8 with shape (4, 8, 8)",
        ),
        (
            torch.zeros(8, 8, 3, dtype=torch.uint8),
            "with shape (8, 8, 3): give torch.uint8 with shape (3, H, W)",
        ),
        (torch.zeros(8, 8, dtype=torch.uint8), "with shape (8, 8): give"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), "with shape (3, 0, 8): give"),
        ([torch.zeros(3, 8, 8)], "images[0] is a tensor of torch.float32 with shape (3, 8, 8)"),
        (["a.png", None], "images[1] is a NoneType: give a path, an image of Pillow, or a uint8 tensor"),
        (np.zeros((8, 8, 3), np.uint8), "images is a ndarray: give a path"),
        ([np.zeros((8, 8, 3), np.uint8)], "images[0] is a ndarray: give a path"),
        (b"a.png", "images is a bytes: give a path"),
        (3, "images is a int: give a path"),
    ],
)
def test_what_is_no_image_is_one_line(network, images, message):
    with pytest.raises(InvalidImageError) as error:
        network.describe(images)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


def test_an_unreadable_image_in_memory_is_named_by_its_index(network, files, tmp_path):
    data = files[0].read_bytes()
    (tmp_path / "part.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableImageError, match=r"^images\[1\] cannot be decoded: "):
        network.describe([Image.open(files[0]), Image.open(tmp_path / "part.png")])
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    with pytest.raises(
        UnreadableImageError, match=r"^images\[0\] cannot be decoded: its pixels are real num"
    ):
        network.describe(floats)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("regional_attention", {"backbone": "vgg"}, "backbone vgg is none of resnet101_caffe"),
        ("regional_attention", {"pooling": "sum"}, "pooling 'sum' is not one of ra, rmac, mac"),
        ("regional_attention", {"weights_dir": ""}, "weights_dir is empty"),
        ("regional_attention", {"backbone": "efficientnet_lite1"}, "backbone efficientnet_lite1 lacks "),
        ("resnet101_caffe", {"weights_dir": "none"}, "lacks none/ContextAware.* Prepare_Datasets.py weights"),
        ("efficientnet_lite0", {"S": 0}, "S 0 is not"),
    ],
)
def test_arguments_that_are_not_valid_are_one_line(name, options, message):
    with pytest.raises(UserError, match=message):
        load(name, **options)


@pytest.mark.slow
def test_works_in_another_folder_without_the_packages_that_it_does_not_list(files, expected, tmp_path):
    code = """
import importlib, os, sys
for name in sys.argv[3].split(","):
    sys.modules[name] = None  # import raises ModuleNotFoundError
import numpy as np
import torch
from PIL import Image

network = torch.hub.load(sys.argv[1], "efficientnet_lite0", source="local", device="cpu", S=96)
os.chdir("/")
descriptors = network.describe([Image.open(path) for path in sys.argv[4:]])
np.save(sys.argv[2], descriptors)
"""
    relative = os.path.relpath(ROOT, tmp_path)
    for repository in (ROOT, relative):
        done = as_program(code, tmp_path, repository, tmp_path / "descriptors.npy", ",".join(OUTSIDE), *files)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(np.load(tmp_path / "descriptors.npy"), expected)
    for name in ("colour.png", "weights"):
        assert not (tmp_path / name).exists()


def test_missing_dependencies_are_named_by_torch_hub(tmp_path):
    code = """
import importlib.util, sys
import torch
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "numba" else find_spec(name, *more)
torch.hub.load(sys.argv[1], "efficientnet_lite0", source="local")
"""
    done = as_program(code, tmp_path, ROOT)
    assert done.stderr.splitlines()[-1] == "RuntimeError: Missing dependencies: numba"


@pytest.mark.parametrize(
    ("name", "file"), [("utils", "utils.py"), ("models", "models/__init__.py"), ("utils", "utils/other.py")]
)
def test_another_package_of_the_same_name_is_one_line(tmp_path, name, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    code = """
import sys
import torch
__import__(sys.argv[2])
torch.hub.load(sys.argv[1], "efficientnet_lite0", source="local")
"""
    done = as_program(code, tmp_path, ROOT, name)
    line = done.stderr.splitlines()[-1]
    loaded = tmp_path / (file if "other" not in file else name)
    assert line.startswith(
        f"ImportError: {ROOT.name} has a package {name}, but another one is loaded already"
    )
    assert f"({loaded}): rename that one" in line
