"""The registry of poolings, and the names that derive from it."""

from typing import get_args

import pytest
import torch

import Measure_OxfordParis
import Search_Images
from models.poolings.attention_head import ContextAwareRegionalAttention
from models.poolings.pooling import PoolingParts
from models.poolings.registry import POOLINGS, PoolingName, need_attention, options_of
from utils.options.options_class import declared_options
from utils.options.shared import DescriptorOptions

SIZE = (96, 160)


def test_the_names_for_the_type_checker_are_the_keys_and_the_names_of_the_classes():
    assert get_args(PoolingName) == tuple(POOLINGS)
    assert [pooling.name for pooling in POOLINGS.values()] == list(POOLINGS)
    assert list(POOLINGS) == ["ra", "rmac", "mac", "spoc", "gem", "rgem"]


@pytest.mark.parametrize("options", [Measure_OxfordParis.MeasureOptions, Search_Images.IndexOptions])
def test_each_pooling_is_a_value_of_the_option(options):
    by_name = {one.name: one for one in declared_options(options)}
    for option in {"pooling", "compare"} & by_name.keys():
        assert by_name[option].value_type.choices.names == tuple(POOLINGS)


def test_options_that_poolings_depend_on_are_binding_options_of_descriptors():
    binding = {one.name for one in declared_options(DescriptorOptions) if one.binding}
    assert options_of(POOLINGS) == {"L", "activation", "gem_p"} <= binding


@pytest.mark.parametrize(
    ("poolings", "options"),
    [
        (["ra"], {"L", "activation"}),
        (["mac", "spoc"], set()),
        (["gem"], {"gem_p"}),
        (["rgem"], {"L", "gem_p"}),
        (["rmac", "gem"], {"L", "gem_p"}),
    ],
)
def test_the_options_of_poolings(poolings, options):
    assert options_of(poolings) == options


def test_only_regional_attention_needs_the_head():
    assert [name for name in POOLINGS if need_attention([name])] == ["ra"]
    assert need_attention(["mac", "ra"])
    with pytest.raises(ValueError, match="needs an attention head"):
        POOLINGS["ra"].build(PoolingParts(5, 32, 3.0))


def outputs(name, levels=2, stride=32, p=3.0, activation="tanh"):
    """Return vectors and weights of a random map by a pooling with given parameters."""
    torch.manual_seed(0)
    head = ContextAwareRegionalAttention(4, activation)
    maps = torch.rand(1, 4, 3, 5)
    return POOLINGS[name].build(PoolingParts(levels, stride, p, head))(maps, SIZE)


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize(
    ("option", "change"),
    [("L", {"levels": 3}), ("gem_p", {"p": 2.0}), ("activation", {"activation": "softplus"})],
)
def test_a_pooling_depends_on_the_options_that_it_names_and_no_others(name, option, change):
    before, after = outputs(name), outputs(name, **change)
    changed = any(
        one.shape != other.shape or bool((one != other).any())
        for one, other in zip(before, after, strict=True)
    )
    assert changed == (option in POOLINGS[name].options)
