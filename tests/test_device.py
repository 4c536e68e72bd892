import os

import pytest
import torch

from models.backbones.registry import backbone_spec
from utils.device import choose_device, suitable_batch_size, suitable_memory_format, suitable_workers
from utils.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # a device can be named without being present


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_chosen_device_computes_in_full_float32_and_deterministically(monkeypatch, name):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    choose_device(name)
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.deterministic is True


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)  # pretend that there is one
    assert choose_device("auto") == GPU


def test_a_gpu_that_cannot_compute_is_an_error(monkeypatch):
    def fail(*size, device):
        raise RuntimeError("no such GPU\nand a long trace")

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(UserError, match=r"device 'cuda:7' cannot be used \(no such GPU\)"):
        choose_device("cuda:7")


@pytest.mark.parametrize(
    ("device", "cores", "workers"),
    [
        # On a CPU, where the network needs the cores, one worker per eight cores.
        (CPU, None, 0),
        (CPU, 1, 0),
        (CPU, 7, 0),
        (CPU, 8, 1),
        (CPU, 15, 1),
        (CPU, 64, 8),
        # With a GPU, one worker per core, up to eight.
        (GPU, None, 1),
        (GPU, 2, 2),
        (GPU, 8, 8),
        (GPU, 64, 8),
    ],
)
def test_suitable_workers_are_as_many_as_the_network_leaves_cores_for(monkeypatch, device, cores, workers):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert suitable_workers(device) == workers


@pytest.mark.parametrize(("device", "images"), [(CPU, 1), (GPU, 16)])
def test_suitable_batches_are_single_images_on_a_cpu_and_larger_on_a_gpu(monkeypatch, device, images):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)  # has no effect
    assert suitable_batch_size(device) == images


@pytest.mark.parametrize(
    ("device", "backbone", "memory_format"),
    [
        (CPU, "efficientnet_lite0", torch.channels_last),
        (CPU, "resnet101", torch.channels_last),
        (GPU, "resnet101", torch.channels_last),
        (GPU, "efficientnet_lite0", torch.contiguous_format),  # it has depthwise convolutions
    ],
)
def test_depthwise_convolutions_run_in_the_default_format_on_a_gpu(device, backbone, memory_format):
    layers = backbone_spec(backbone).build().features
    assert suitable_memory_format(device, layers) == memory_format


def test_float32_products_are_of_float32_whatever_the_environment_says():
    torch.set_float32_matmul_precision("high")
    choose_device("cpu")
    assert torch.get_float32_matmul_precision() == "highest"
