"""The linear classifier of frozen features, compared with scikit-learn's, and its files."""

import json

import numpy as np
import pytest
import torch
from helpers import embedded_state
from sklearn.linear_model import LogisticRegression

from utils.errors import UserError
from utils.options.shared import BackboneOptions
from utils.training.classifier import DECAY, fit_classifier
from utils.weights.classifiers import Classifier, read_classifier, save_classifier
from utils.weights.networks import load_classifier


def go_on():
    pass


def clouds(count=120, channels=6, classes=3):
    """Return random points of overlapping classes, around one centre per class, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    centres = rng.standard_normal((classes, channels))
    return (centres[labels] + 1.5 * rng.standard_normal((count, channels)) + 5).astype(np.float32), labels


def fitted(points, labels, classes=3, steps=1000):
    return fit_classifier(torch.from_numpy(points), torch.from_numpy(labels), classes, steps, go_on)[0]


def scores(classifier, points):
    values = torch.from_numpy(points).double() @ classifier.weight.double().T + classifier.bias.double()
    return (values - values.mean(1, keepdim=True)).numpy()  # an offset of all classes has no effect


def test_the_scores_are_those_of_scikit_learns_logistic_regression():
    points, labels = clouds()
    shifted = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    scaled = shifted / np.sqrt(np.square(shifted).sum(1).mean())
    other = LogisticRegression(C=1 / (DECAY * len(points)), tol=1e-10, max_iter=10_000).fit(scaled, labels)
    expected = other.decision_function(scaled)
    np.testing.assert_allclose(scores(fitted(points, labels), points), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("factor", "shift"), [(1e-4, 0), (1e4, 0), (1, -100), (100, 3000)])
def test_the_scores_do_not_depend_on_the_scale_and_origin_of_the_features(factor, shift):
    points, labels = clouds()
    moved = (factor * points + shift).astype(np.float32)
    expected = scores(fitted(points, labels), points)
    np.testing.assert_allclose(scores(fitted(moved, labels), moved), expected, rtol=1e-2, atol=1e-2)


def test_two_points_by_hand():
    """The weights of points -1 and 1 are (-w, w): the gradient is 0 where sigmoid(-2 w) is DECAY times w."""
    classifier = fitted(np.array([[-1.0], [1.0]], np.float32), np.array([0, 1]), 2)
    (minus,), (w,) = classifier.weight.tolist()
    assert minus == pytest.approx(-w)
    assert 1 / (1 + np.exp(2 * w)) == pytest.approx(DECAY * w, rel=0.02)
    assert classifier.bias.tolist() == pytest.approx([0, 0], abs=1e-5)


def test_the_steps_are_limited_and_counted():
    points, labels = clouds()
    features, classes = torch.from_numpy(points), torch.from_numpy(labels)
    losses = []
    for steps in (1, 3, 1000):
        classifier, taken = fit_classifier(features, classes, 3, steps, go_on)
        assert taken == min(taken, steps)
        values = torch.from_numpy(scores(classifier, points))
        losses.append(float(torch.nn.functional.cross_entropy(values, classes)))
    assert losses == sorted(losses, reverse=True)
    assert 3 < taken < 1000


def test_features_in_several_parts_give_the_same_classifier(monkeypatch):
    from utils.training import classifier as module

    points, labels = clouds()
    together = fitted(points, labels)
    monkeypatch.setattr(module, "ROWS", 7)
    np.testing.assert_allclose(scores(fitted(points, labels), points), scores(together, points), atol=1e-4)


def test_equal_features_are_refused():
    with pytest.raises(UserError, match="all 4 training images have the same features"):
        fitted(np.ones((4, 3), np.float32), np.array([0, 0, 1, 1]), 2)


def test_the_fit_ends_at_a_wish_to_stop():
    points, labels = clouds()

    def stop():
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        fit_classifier(torch.from_numpy(points), torch.from_numpy(labels), 3, 10, stop)


BACKBONE = {"backbone": "tiny", "backbone_digest": "0123"}


@pytest.fixture
def saved(tmp_path):
    classifier = Classifier(torch.arange(6.0).reshape(2, 3), torch.tensor([0.5, -1.0]), ["cat", "a dog"])
    save_classifier(tmp_path / "classifier.pth", classifier, {**BACKBONE, "train_accuracy": 0.5})
    return tmp_path / "classifier.pth"


def test_a_classifier_is_a_state_dict_with_its_classes_beside_it(saved):
    state = torch.load(saved, weights_only=True)
    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        "fc.weight": [[0, 1, 2], [3, 4, 5]],
        "fc.bias": [0.5, -1],
    }
    record = json.loads(saved.with_suffix(".json").read_text())
    assert record == {**BACKBONE, "train_accuracy": 0.5, "classes": ["cat", "a dog"]}
    read = read_classifier(saved, 3, BACKBONE)
    assert read.classes == ["cat", "a dog"]
    assert read.weight.equal(state["fc.weight"]) and read.bias.equal(state["fc.bias"])
    saved.with_suffix(".json").unlink()
    assert read_classifier(saved, 3, BACKBONE).classes is None


def with_record(**changes):
    def change(path):
        record = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(record | changes))

    return change


def with_state(**changes):
    def change(path):
        state = torch.load(path, weights_only=True)
        torch.save(state | {name.replace("_", "."): value for name, value in changes.items()}, path)

    return change


CHANGES = {
    "other channels": (with_state(fc_weight=torch.zeros(2, 4)), r"no classifier: fc.weight \(K, 3\)"),
    "other biases": (with_state(fc_bias=torch.zeros(3)), "no classifier"),
    "scalar": (with_state(fc_bias=torch.tensor(1.0)), "no classifier"),
    "integers": (with_state(fc_weight=torch.zeros(2, 3, dtype=torch.int64)), "no real numbers"),
    "nan": (with_state(fc_bias=torch.tensor([0, torch.nan])), "not finite"),
    "too few names": (with_record(classes=["cat"]), "names 1 classes, but .* has 2"),
    "a name twice": (with_record(classes=["cat", "cat"]), "names 1 classes, but .* has 2"),
    "no names": (with_record(classes=None), "is unreadable"),
    "other backbone": (with_record(backbone="other"), "for backbone other, not tiny"),
    "other weights": (with_record(backbone_digest="9"), "for backbone_digest 9, not 0123"),
    "no file": (lambda path: path.unlink(), "no weights at"),
    "other file": (lambda path: path.write_bytes(b"x"), "cannot be read"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_a_classifier_that_does_not_fit_is_refused(saved, change, message):
    change(saved)
    with pytest.raises(UserError, match=message):
        read_classifier(saved, 3, BACKBONE)


@pytest.mark.parametrize(
    ("change", "message"),
    [(torch.full_like, "not finite"), (lambda bias, _: bias[:, None], "has no classifier"), (None, "has no")],
)
def test_the_classifier_of_a_backbone_is_checked_like_a_file_of_the_user(tmp_path, change, message):
    state = embedded_state()
    (name,) = [name for name in state if name.endswith("fc.bias")]
    bias = state.pop(name)
    if change is not None:
        state[name] = change(bias, torch.nan)
    torch.save(state, tmp_path / "weights.pth")
    options = BackboneOptions(backbone="efficientnet_lite0", backbone_weights=tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        load_classifier(options)
