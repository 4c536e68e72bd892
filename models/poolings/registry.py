"""The registry of poolings. To add one, add its class to POOLINGS and its name to PoolingName."""

from collections.abc import Iterable
from typing import Literal

from models.poolings.gem import GeM
from models.poolings.mac import MAC
from models.poolings.pooling import Pooling
from models.poolings.regional_attention import RegionalAttention
from models.poolings.regional_gem import RegionalGeM
from models.poolings.rmac import RMAC
from models.poolings.spoc import SPoC

PoolingName = Literal["ra", "rmac", "mac", "spoc", "gem", "rgem"]
"""The keys of POOLINGS, for the type checker."""

POOLINGS: dict[PoolingName, type[Pooling]] = {
    "ra": RegionalAttention,
    "rmac": RMAC,
    "mac": MAC,
    "spoc": SPoC,
    "gem": GeM,
    "rgem": RegionalGeM,
}

DEFAULT_POOLING: PoolingName = "ra"


def options_of(poolings: Iterable[PoolingName]) -> frozenset[str]:
    """Return the names of the options that the descriptors of some poolings depend on."""
    return frozenset[str]().union(*(POOLINGS[name].options for name in poolings))


def need_attention(poolings: Iterable[PoolingName]) -> bool:
    """Return whether a pooling needs the attention head."""
    return any(POOLINGS[name].has_attention for name in poolings)
