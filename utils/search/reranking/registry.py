"""The re-rankings by the names of --rerank-by."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.region_vectors import RegionVectors
from utils.images.batches import Loading
from utils.images.loading import InputImage
from utils.images.local_features import opencv
from utils.options.shared import RerankName, RerankOptions
from utils.search.reranking.geometry import Geometry
from utils.search.reranking.k_reciprocal import k_reciprocal
from utils.search.reranking.regions import RegionReranking
from utils.search.reranking.reranker import Reranker
from utils.search.reranking.superglobal import superglobal


class RerankInputs(NamedTuple):
    """The images that re-rankings read, and the network that describes them."""

    network: Callable[[], RetrievalNetwork]
    """Returns the network."""
    queries: Sequence[InputImage]
    images: Sequence[InputImage]
    """The images of the rows of the database."""
    loading: Loading


def check_rerankers(options: RerankOptions) -> None:
    """Check that the packages of the re-rankings are installed; call it before long computations.

    Raises:
        UserError: one is not.
    """
    if options.rerank and "geometry" in options.rerank_by:
        opencv()


def build_rerankers(options: RerankOptions, inputs: RerankInputs, seed: int) -> list[dict[str, Reranker]]:
    """Return the re-rankings that the options select by name, per pooling; empty without --rerank.

    Args:
        options: options of the re-ranking.
        inputs: the images and the network.
        seed: random seed of the homographies.
    """
    names = options.rerank_by if options.rerank else ()
    geometry = Geometry(inputs.queries, inputs.images, seed)
    return [
        {str(name): _build(name, options, inputs, geometry, pooling) for name in names}
        for pooling in range(len(inputs.network().poolings))
    ]


def build_reranker(options: RerankOptions, inputs: RerankInputs, seed: int = 0) -> Reranker:
    """Return the first re-ranking that the options name, for a network with one pooling.

    Args:
        options: options of the re-ranking.
        inputs: the images and the network.
        seed: random seed of the homographies.
    """
    return _build(options.rerank_by[0], options, inputs, Geometry(inputs.queries, inputs.images, seed), 0)


def _build(
    name: RerankName, options: RerankOptions, inputs: RerankInputs, geometry: Geometry, pooling: int
) -> Reranker:
    if name == "superglobal":
        return partial(superglobal, neighbours=options.rerank_neighbours)
    if name == "k-reciprocal":
        return partial(k_reciprocal, neighbours=options.rerank_neighbours)
    if name == "geometry":
        return geometry
    network, loading = inputs.network(), inputs.loading
    return RegionReranking(
        queries=RegionVectors(network, inputs.queries, loading, pooling),
        database=RegionVectors(network, inputs.images, loading, pooling),
    )
