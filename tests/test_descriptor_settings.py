import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.descriptors.settings import descriptor_settings
from utils.descriptors.store import open_store
from utils.errors import UserError
from utils.options.shared import DescriptorOptions
from utils.weights.state_dicts import digest

CHANNELS = 1280
OPTIONS = DescriptorOptions(backbone="efficientnet_lite0", pooling="rmac", whiten=False, S=64)
HEAD, COMPONENTS, MEAN = (
    "ContextAwareRegionalAttention_weights.pth",
    "pca_components.npy",
    "pca_mean.npy",
)


@pytest.fixture
def weights(tmp_path):
    """A weights folder with small attention and whitening files for the embedded backbone."""
    folder = tmp_path / "weights" / "efficientnet_lite0"
    folder.mkdir(parents=True)
    torch.save({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}, folder / HEAD)
    np.save(folder / COMPONENTS, np.arange(8, dtype=np.float32).reshape(2, 4))
    np.save(folder / MEAN, np.arange(4, dtype=np.float32))
    return tmp_path / "weights"


def settings(weights, pooling="rmac", **changes):
    return descriptor_settings(replace(OPTIONS, weights_dir=weights, **changes), pooling.split(","))


def differing(one, two):
    return {name for name in one | two if one.get(name) != two.get(name)}


def test_a_digest_is_sha256_of_names_types_shapes_and_values():
    state = {"b": torch.tensor([[1.0, 2.0]]), "a": torch.tensor(3, dtype=torch.int64)}
    text = b"a torch.int64 ()\n" + np.int64(3).tobytes()
    text += b"b torch.float32 (1, 2)\n" + np.array([1, 2], np.float32).tobytes()
    assert digest(state) == hashlib.sha256(text).hexdigest()[:16]


def test_equal_contents_have_one_digest_in_any_order_and_layout():
    values = torch.arange(6.0).reshape(2, 3)
    expected = digest({"a": values, "b": torch.ones(2)})
    assert len(expected) == 16
    assert digest({"b": torch.ones(2), "a": values.clone()}) == expected
    assert digest({"a": values.T.contiguous().T, "b": torch.ones(4)[::2].requires_grad_()}) == expected


@pytest.mark.parametrize(
    "state",
    [
        {"a": torch.tensor([1.0, 2.0, 3.0, 4.0001])},
        {"a": torch.tensor([1.0, 2.0, 4.0, 3.0])},
        {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
        {"a": torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)},
        {"a": torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16)},
        {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]).view(torch.int32)},
        {"b": torch.tensor([1.0, 2.0, 3.0, 4.0])},
        {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([])},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])},
        {},
    ],
)
def test_another_value_shape_type_or_name_has_another_digest(state):
    assert digest(state) != digest({"a": torch.tensor([1.0, 2.0, 3.0, 4.0])})


def test_without_attention_and_whitening_neither_their_files_nor_the_activation_count(tmp_path):
    saved = settings(tmp_path)
    assert settings(tmp_path, activation="softplus") == saved
    assert saved.pop("backbone weights")
    assert saved == {
        "method": 2,
        "backbone": "efficientnet_lite0",
        "pooling": "rmac",
        "whiten": False,
        "S": 64,
        "L": 5,
        "scales": [1.0],
        "precision": "float32",
    }


def test_mac_has_one_region_whatever_the_number_of_levels(tmp_path):
    saved = settings(tmp_path, pooling="mac")
    assert settings(tmp_path, pooling="mac", L=2) == saved
    assert "L" not in saved
    assert differing(settings(tmp_path, pooling="mac,rmac"), settings(tmp_path, pooling="mac,rmac", L=2)) == {
        "L"
    }


def test_the_exponent_counts_with_gem_only(weights):
    for pooling in ("ra", "rmac", "mac", "spoc", "mac,rmac"):
        assert "gem_p" not in settings(weights, pooling=pooling)
    for pooling in ("gem", "rgem", "ra,gem"):
        one, other = (
            descriptor_settings(
                replace(OPTIONS, weights_dir=weights, pooling="gem", gem_p=p), pooling.split(",")
            )
            for p in (3, 4)
        )
        assert one["gem_p"] == 3
        assert differing(one, other) == {"gem_p"}


@pytest.mark.parametrize("pooling", ["mac", "spoc", "gem", "mac,gem"])
def test_poolings_of_the_entire_map_do_not_depend_on_levels(tmp_path, pooling):
    assert "L" not in settings(tmp_path, pooling=pooling)
    assert "L" in settings(tmp_path, pooling=f"{pooling},rgem")


@pytest.mark.parametrize("pooling", ["ra", "mac,ra", "ra,rmac,mac"])
def test_with_attention_its_weights_and_activation_count(weights, pooling):
    before = settings(weights, pooling=pooling)
    assert differing(before, settings(weights, pooling=pooling, activation="softplus")) == {"activation"}
    path = weights / "efficientnet_lite0" / HEAD
    state = torch.load(path, weights_only=True)
    torch.save(dict(reversed(state.items())), path)
    assert settings(weights, pooling=pooling) == before  # another file of the same values
    state["bias"][1] = 1e-6
    torch.save(state, path)
    assert differing(before, settings(weights, pooling=pooling)) == {"attention weights"}


@pytest.mark.parametrize("name", [COMPONENTS, MEAN])
def test_with_whitening_both_its_files_count(weights, name):
    before = settings(weights, whiten=True)
    assert differing(before, settings(weights)) == {"whiten", "whitening"}
    path = weights / "efficientnet_lite0" / name
    values = np.load(path)
    np.save(path, np.asfortranarray(values))
    assert settings(weights, whiten=True) == before
    values.ravel()[2] += 1e-6
    np.save(path, values)
    assert differing(before, settings(weights, whiten=True)) == {"whitening"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("pooling", "mac,rmac"), ("S", 65), ("L", 4), ("scales", (1.0, 0.5)), ("precision", "float16")],
)
def test_each_setting_that_changes_descriptors_counts(tmp_path, name, value):
    assert differing(settings(tmp_path), settings(tmp_path, **{name: value})) == {name}


def test_the_backbones_weights_count_without_the_folding_of_batch_norms(weights, monkeypatch):
    before = settings(weights)
    state = {"weight": torch.ones(3)}
    monkeypatch.setattr("utils.descriptors.settings.read_backbone_weights", lambda *_: (state, "somewhere"))
    monkeypatch.setattr("utils.descriptors.settings.remembered_digest", lambda *arguments: arguments[-1]())
    other = settings(weights)
    assert differing(before, other) == {"backbone weights"}
    assert other["backbone weights"] == digest(state)


def test_missing_files_are_reported(tmp_path):
    with pytest.raises(UserError, match=f"no weights at .*{HEAD}"):
        settings(tmp_path, pooling="ra")
    with pytest.raises(UserError, match=f"no PCA file at .*{COMPONENTS}"):
        settings(tmp_path, whiten=True)


def test_a_store_of_an_earlier_method_is_refused_by_name(tmp_path):
    saved = settings(tmp_path)
    open_store(tmp_path / "store", saved | {"method": 1})
    with pytest.raises(UserError, match=r"another version .*\(method 1, now 2\): delete it") as error:
        open_store(tmp_path / "store", saved)
    assert str(tmp_path / "store") in str(error.value)


def test_settings_come_back_from_json_as_they_were(weights):
    saved = settings(weights, pooling="ra", whiten=True)
    assert {"method", "attention weights", "whitening"} < saved.keys()
    assert json.loads(json.dumps(saved)) == saved


def test_s_is_the_backbones_where_it_is_not_given():
    assert DescriptorOptions().longer_side == 1024  # the original's
    assert DescriptorOptions(backbone="efficientnet_lite2").longer_side == 512
    options = DescriptorOptions(backbone="efficientnet_lite0", pooling="rmac", whiten=False)
    assert descriptor_settings(options, ["rmac"])["S"] == 512
    given = DescriptorOptions(backbone="efficientnet_lite0", pooling="rmac", whiten=False, S=300)
    assert given.longer_side == 300
    assert descriptor_settings(given, ["rmac"])["S"] == 300
