import numpy as np
import pytest
import torchvision.transforms
from conftest import draw_image
from PIL import Image

from utils.data.labelled_images import LabelledImages
from utils.images.loading import UnreadableImageError
from utils.training.crops import (
    CentreCrops,
    CropSettings,
    RandomCrops,
    centre_crop,
    crop_batches,
    random_crop,
    resize_shorter,
)

SETTINGS = CropSettings(32, 40, 44, "nearest")


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        draw_image(path, number, (64 + 8 * number, 48))
    return LabelledImages(paths, np.arange(6))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(101, 67), (67, 101), (50, 50)])
def test_resizes_as_torchvision_does(size, interpolation):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    mode = torchvision.transforms.InterpolationMode(interpolation)
    expected = torchvision.transforms.Resize(40, mode)(image)
    np.testing.assert_array_equal(np.array(resize_shorter(image, 40, interpolation)), np.array(expected))


def test_the_centre_is_torchvisions(images):
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(32, torchvision.transforms.InterpolationMode.NEAREST),
            torchvision.transforms.CenterCrop(32),
        ]
    )
    for path in images.paths:
        np.testing.assert_array_equal(centre_crop(path, SETTINGS), np.array(transform(Image.open(path))))


def test_random_crops_reach_every_position_and_size(tmp_path):
    # Red is the column and green the row of 400 x 300 pixels, so that a crop shows its position and scale.
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.linspace(0, 255, 400), np.linspace(0, 255, 300)[:, None]
    Image.fromarray(pixels).save(tmp_path / "ramp.png")
    settings = CropSettings(280, 290, 300, "nearest")
    crops = [random_crop(tmp_path / "ramp.png", settings, np.random.default_rng(seed)) for seed in range(300)]
    lefts, tops = ({int(crop[0, 0, channel]) for crop in crops} for channel in (0, 1))
    assert min(lefts) == min(tops) == 0
    assert max(lefts) > 0.9 * 120 / 400 * 255
    assert max(tops) > 0.8 * 20 / 300 * 255
    assert len({int(crop[-1, 0, 1]) - int(crop[0, 0, 1]) for crop in crops}) > 3  # one value per scale
    assert {crop.shape for crop in crops} == {(280, 280, 3)}


def test_a_crop_only_depends_on_the_seed_and_its_number(images):
    numbers = [range(0, 3), range(3, 6), range(6, 9)]
    plain = list(crop_batches(RandomCrops(images, SETTINGS, 7), numbers, 0))
    workers = list(crop_batches(RandomCrops(images, SETTINGS, 7), numbers, 2))
    later = list(crop_batches(RandomCrops(images, SETTINGS, 7), numbers[1:], 1))
    for one, other in [*zip(plain, workers, strict=True), *zip(plain[1:], later, strict=True)]:
        assert one.pixels.equal(other.pixels)
        assert one.classes.equal(other.classes)
    assert not plain[0].pixels.equal(next(crop_batches(RandomCrops(images, SETTINGS, 8), numbers, 0)).pixels)


def test_images_are_drawn_with_replacement(images):
    numbers = [range(600)]
    classes = next(crop_batches(RandomCrops(images, SETTINGS, 0), numbers, 0)).classes
    counts = classes.bincount(minlength=6)
    assert counts.sum() == 600
    assert counts.min() > 60
    assert len(set(counts.tolist())) > 1


def test_an_unreadable_image_is_replaced_by_another_and_named(images):
    images.paths[2].write_bytes(b"")
    batch = next(crop_batches(RandomCrops(images, SETTINGS, 0), [range(60)], 0))
    assert len(batch.classes) == 60
    assert 2 not in batch.classes
    assert set(batch.unreadable) == {images.paths[2]}


def test_an_image_too_thin_for_the_memory_is_left_out_and_named(tmp_path, images):
    # With a shorter side of 850, 1 x 3000 pixels become 850 x 2,550,000, or 2.2 billion.
    Image.new("RGB", (1, 3000)).save(images.paths[2])
    settings = CropSettings(800, 850, 859, "nearest")
    with pytest.raises(
        UnreadableImageError, match=r"2\.png cannot be decoded: .*too thin to crop: 1 x 3000 "
    ):
        random_crop(images.paths[2], settings, np.random.default_rng(0))
    for dataset in (CentreCrops(images, settings), RandomCrops(images, settings, 0)):
        batch = next(crop_batches(dataset, [range(6)], 0))
        assert 2 not in batch.classes
        assert set(batch.unreadable) == {images.paths[2]}


def test_a_thin_image_is_cropped(tmp_path):
    Image.new("RGB", (10, 1000), (1, 2, 3)).save(tmp_path / "thin.png")
    crop = random_crop(tmp_path / "thin.png", SETTINGS, np.random.default_rng(0))
    assert (crop == [1, 2, 3]).all()
    assert crop.shape == (32, 32, 3)


def test_an_unreadable_image_has_no_centre_crop(images):
    images.paths[2].write_bytes(b"")
    batch = next(crop_batches(CentreCrops(images, SETTINGS), [range(6)], 0))
    assert batch.classes.tolist() == [0, 1, 3, 4, 5]
    assert batch.pixels.shape == (5, 32, 32, 3)
    assert batch.unreadable == [images.paths[2]]
