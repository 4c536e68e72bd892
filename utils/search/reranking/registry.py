"""The re-rankings by the names of --rerank-by."""

from functools import partial

from utils.options.shared import RerankName, SearchOptions
from utils.search.reranking.k_reciprocal import k_reciprocal
from utils.search.reranking.reranker import Reranker
from utils.search.reranking.superglobal import superglobal


def build_rerankers(options: SearchOptions) -> dict[str, Reranker]:
    """Return the re-rankings that the options select, by name; empty without --rerank."""
    if not options.rerank:
        return {}
    by_descriptors: dict[RerankName, Reranker] = {
        "superglobal": partial(superglobal, neighbours=options.rerank_neighbours),
        "k-reciprocal": partial(k_reciprocal, neighbours=options.rerank_neighbours),
    }
    return {name: by_descriptors[name] for name in options.rerank_by}
