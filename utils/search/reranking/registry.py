"""The re-rankings by the names of --rerank-by."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from models.retrieval_network import RetrievalNetwork
from utils.descriptors.region_vectors import RegionVectors
from utils.images.batches import Loading
from utils.images.loading import InputImage
from utils.images.local_features import opencv
from utils.options.shared import RerankName, SearchOptions
from utils.search.reranking.geometry import Geometry
from utils.search.reranking.k_reciprocal import k_reciprocal
from utils.search.reranking.regions import regions
from utils.search.reranking.reranker import Reranker
from utils.search.reranking.superglobal import superglobal


class RerankInputs(NamedTuple):
    """The images that re-rankings read, and the network that describes them."""

    network: RetrievalNetwork
    queries: Sequence[InputImage]
    images: Sequence[InputImage]
    """The images of the rows of the database."""
    loading: Loading


def check_rerankers(options: SearchOptions) -> None:
    """Check that the packages of the re-rankings are installed; call it before long computations.

    Raises:
        UserError: one is not.
    """
    if options.rerank and "geometry" in options.rerank_by:
        opencv()


def build_rerankers(options: SearchOptions, inputs: RerankInputs, seed: int) -> list[dict[str, Reranker]]:
    """Return the re-rankings that the options select by name, per pooling; empty without --rerank.

    Args:
        options: options of the searches.
        inputs: the images and the network.
        seed: random seed of the homographies.
    """
    network, loading = inputs.network, inputs.loading
    geometry = Geometry(inputs.queries, inputs.images, seed)
    rerankers = []
    for pooling in range(len(network.poolings)):
        by_name: dict[RerankName, Reranker] = {
            "superglobal": partial(superglobal, neighbours=options.rerank_neighbours),
            "k-reciprocal": partial(k_reciprocal, neighbours=options.rerank_neighbours),
            "regions": partial(
                regions,
                queries=RegionVectors(network, inputs.queries, loading, pooling),
                database=RegionVectors(network, inputs.images, loading, pooling),
            ),
            "geometry": geometry,
        }
        names = options.rerank_by if options.rerank else ()
        rerankers.append({str(name): by_name[name] for name in names})
    return rerankers
