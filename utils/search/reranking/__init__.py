"""Re-ranking of the first images of a search: one method per module, all with the interface of `reranker`."""
