"""Index of a folder of photographs: descriptors and catalogue in a folder or in Milvus."""
