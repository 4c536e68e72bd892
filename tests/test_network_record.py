import hashlib
import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import embedded_state, save_other_weights

from utils.errors import UserError
from utils.options.shared import BackboneOptions, DescriptorOptions
from utils.saved_settings import METHOD_VERSION
from utils.weights.network_record import (
    Network,
    PartWriter,
    check_recorded_files,
    read_network_record,
)
from utils.weights.networks import identify_network, load_backbone, load_network

ROOT = Path(__file__).parents[1]
HEAD = "ContextAwareRegionalAttention_weights.pth"
COMPONENTS, MEAN = "pca_components.npy", "pca_mean.npy"
NETWORK = Network("resnet101", 2048, "0123456789abcdef")
EMBEDDED = ["efficientnet_lite0", "efficientnet_lite2"]
CPU = torch.device("cpu")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights(tmp_path):
    """A weights folder with the files of the embedded backbone."""
    shutil.copytree(ROOT / "weights" / "efficientnet_lite0", tmp_path / "weights" / "efficientnet_lite0")
    return tmp_path / "weights"


@pytest.fixture
def options(weights):
    return DescriptorOptions(backbone="efficientnet_lite0", weights_dir=weights)


def change(weights, **changes):
    """Change fields of the record in a weights folder; None removes a field."""
    path = weights / "efficientnet_lite0" / "network.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_each_run_writes_its_part_and_keeps_the_others(tmp_path):
    for name in (HEAD, COMPONENTS, MEAN):
        (tmp_path / name).write_text(name)
    facts = {"S": 448, "L": 5, "activation": "softplus", "classes": 3, "class_names": "ab"}
    before = datetime.now(UTC).date()
    PartWriter(tmp_path, NETWORK, "attention", facts).write([HEAD])
    PartWriter(tmp_path, NETWORK, "whitening", {"L": 3}).write([COMPONENTS, MEAN])
    after = datetime.now(UTC).date()
    record = read_network_record(tmp_path)
    assert record == json.loads((tmp_path / "network.json").read_text())
    attention, whitening = record.pop("attention"), record.pop("whitening")
    assert record == {"backbone": "resnet101", "channels": 2048, "backbone_digest": "0123456789abcdef"}
    assert attention.pop("date") in (str(before), str(after))
    assert attention == facts | {
        "torch": torch.__version__.split("+")[0],
        "method": METHOD_VERSION,
        "files": {HEAD: hashlib.sha256(HEAD.encode()).hexdigest()},
    }
    assert whitening["files"] == {name: sha256(tmp_path / name) for name in (COMPONENTS, MEAN)}
    (tmp_path / HEAD).write_text("another head")
    PartWriter(tmp_path, NETWORK, "attention", {"L": 2}).write([HEAD])
    record = read_network_record(tmp_path)
    assert record["attention"]["files"] == {HEAD: sha256(tmp_path / HEAD)}
    assert record["attention"]["L"] == 2
    assert "activation" not in record["attention"]
    assert record["whitening"] == whitening
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [HEAD, COMPONENTS, MEAN, "network.json"]
    )


def test_parts_that_are_written_at_once_are_all_kept(tmp_path):
    (tmp_path / "file").touch()
    names = ["attention", "whitening"]
    for _ in range(5):
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: PartWriter(tmp_path, NETWORK, name, {}).write(["file"]), names))
        assert set(names) <= read_network_record(tmp_path).keys()
        (tmp_path / "network.json").unlink()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            NETWORK._replace(backbone="timm/vgg"),
            "is for backbone resnet101, but this run has backbone timm/vgg",
        ),
        (NETWORK._replace(channels=64), "is for 2048 channels, but this run has 64 channels"),
        (
            NETWORK._replace(backbone_digest="f"),
            "weights with digest 0123456789abcdef, but this run has .* f:",
        ),
    ],
)
def test_a_folder_of_another_network_gets_no_part(tmp_path, other, message):
    (tmp_path / HEAD).touch()
    PartWriter(tmp_path, NETWORK, "attention", {}).write([HEAD])
    data = (tmp_path / "network.json").read_bytes()
    writer = PartWriter(tmp_path, other, "whitening", {})
    for call in (writer.check, lambda: writer.write([HEAD])):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert one_line(error).endswith(": name another --output")
    assert (tmp_path / "network.json").read_bytes() == data
    PartWriter(tmp_path, NETWORK, "whitening", {}).check()
    PartWriter(tmp_path / "none", other, "whitening", {}).check()


def identified(options):
    """Return the network of the weights that the options name."""
    backbone = load_backbone(options.spec, options.weights_dir, options.backbone_weights)
    return identify_network(options, backbone)


@pytest.mark.parametrize("backbone", EMBEDDED)
def test_the_records_in_the_project_fit_the_files_beside_them(backbone):
    folder = ROOT / "weights" / backbone
    record = json.loads((folder / "network.json").read_text())
    options = DescriptorOptions(backbone=backbone, weights_dir=ROOT / "weights")
    assert {name: record[name] for name in NETWORK._fields} == identified(options)._asdict()
    listed = record["attention"]["files"] | record["whitening"]["files"]
    assert listed == {name: sha256(folder / name) for name in (HEAD, COMPONENTS, MEAN)}
    learned = json.loads((folder / "pca.json").read_text())["settings"]
    assert record["backbone"] == learned["backbone"]
    assert record["whitening"].items() >= {name: learned[name] for name in ("S", "L", "components")}.items()
    load_network(options, ["ra"], CPU)


@pytest.mark.parametrize(
    ("changes", "option", "message"),
    [
        (
            {"backbone": "efficientnet_lite2"},
            {},
            "is for backbone efficientnet_lite2, but this run has backbone efficientnet_lite0: put files for",
        ),
        ({"channels": 2048}, {}, "is for 2048 channels, but this run has 1280 channels: put files for"),
        (
            {"backbone_digest": "0123"},
            {},
            "weights with digest 0123, but this run has backbone weights with digest f2fc9aaca381061d: ",
        ),
        (
            {},
            {"activation": "softplus"},
            "for activation tanh, but this run has activation softplus: give --activation tanh, or use a",
        ),
    ],
)
def test_files_of_another_network_are_refused_with_both_sides(options, changes, option, message):
    change(options.weights_dir, **changes)
    with pytest.raises(UserError) as error:
        load_network(replace(options, **option), ["ra"], CPU)
    assert message in one_line(error)
    assert str(options.weights_dir / "efficientnet_lite0" / "network.json") in str(error.value)
    # No file of the folder is used.
    load_network(replace(options, whiten=False, **option), ["rmac"], CPU)


def test_other_weights_of_the_backbone_are_refused(options, tmp_path):
    given = replace(options, backbone_weights=save_other_weights(tmp_path / "other.pth"))
    digest = identified(given).backbone_digest
    assert digest != "f2fc9aaca381061d"
    with pytest.raises(UserError, match=f"digest f2fc9aaca381061d, .* digest {digest}: give the weights"):
        load_network(given, ["rmac"], CPU)
    load_network(replace(given, whiten=False), ["rmac"], CPU)


def test_the_digest_is_of_the_layers_alone(options, tmp_path):
    """A file without the classifier and the counters, or in float64, holds the same network."""
    state = embedded_state()
    kept = {
        name: tensor.double()
        for name, tensor in state.items()
        if not name.startswith(("classifier", "fc", "_fc")) and "num_batches" not in name
    }
    assert 0 < len(kept) < len(state)
    torch.save(kept, tmp_path / "features.pth")
    given = replace(options, backbone_weights=tmp_path / "features.pth")
    assert identified(given).backbone_digest == "f2fc9aaca381061d"
    assert identified(given) == identified(options)


@pytest.mark.parametrize("name", [HEAD, COMPONENTS, MEAN])
def test_a_changed_file_is_refused_where_it_is_used(options, name):
    path = options.weights_dir / "efficientnet_lite0" / name
    recorded = sha256(path)
    if name == HEAD:
        state = torch.load(path, weights_only=True)
        state["conv_att_2.bias"] += 1e-3
        torch.save(state, path)
    else:
        np.save(path, np.load(path) * 1.001)
    with pytest.raises(UserError) as error:
        load_network(options, ["ra"], CPU)
    line = one_line(error)
    assert line.startswith(f"{path} is not the file that network.json beside it describes (SHA-256 ")
    assert (
        f" {sha256(path)[:12]}..., recorded {recorded[:12]}...): copy both from one folder, or delete" in line
    )
    others = {"whiten": False} if name != HEAD else {}
    load_network(replace(options, **others), ["rmac" if name == HEAD else "ra"], CPU)
    (path.parent / "network.json").unlink()
    load_network(options, ["ra"], CPU)


def test_files_that_no_part_lists_are_used_unchecked(options):
    change(options.weights_dir, attention=None)
    path = options.weights_dir / "efficientnet_lite0" / HEAD
    state = torch.load(path, weights_only=True)
    torch.save(dict(reversed(state.items())), path)
    network = load_network(replace(options, activation="softplus"), ["ra"], CPU)
    assert network.state_dict().keys() == load_network(options, ["ra"], CPU).state_dict().keys()
    change(options.weights_dir, whitening=None, backbone="another")
    load_network(options, ["ra"], CPU)


def test_other_levels_than_those_of_the_training_are_noted(options, caplog):
    caplog.set_level(logging.INFO)
    load_network(options, ["ra"], CPU)
    assert "note:" not in caplog.text  # the whitening was learned with L 3
    load_network(replace(options, L=2), ["ra"], CPU)
    assert "note: the attention head was trained with --L 5, not 2" in caplog.text


@pytest.mark.parametrize("contents", ["", "{}", '{"backbone": 3, "channels": 1, "backbone_digest": ""}'])
def test_an_unreadable_record_is_one_line(options, contents):
    path = options.weights_dir / "efficientnet_lite0" / "network.json"
    path.write_text(contents)
    with pytest.raises(UserError, match=f"{path} is unreadable: .*; restore it, or delete it") as error:
        load_network(options, ["ra"], CPU)
    one_line(error)
    assert path.read_text() == contents


def test_a_folder_without_a_record_has_nothing_to_check(tmp_path):
    assert read_network_record(tmp_path) is None
    assert check_recorded_files(tmp_path, {HEAD}, "resnet101", 2048, "tanh", 5) is None
    (tmp_path / HEAD).touch()
    PartWriter(tmp_path, NETWORK, "attention", {}).write([HEAD])
    assert read_network_record(tmp_path)["backbone"] == "resnet101"


def test_the_network_of_options_without_weights_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no weights at"):
        identified(BackboneOptions(backbone="resnet101_caffe", weights_dir=tmp_path))
