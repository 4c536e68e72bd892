"""Where the attention lies: the weights of an image's regions, put back on the cells that they cover."""

from torch import Tensor

from models.region_pooling import averaging_matrix, cell_grid
from models.retrieval_network import RetrievalNetwork


def attention_map(network: RetrievalNetwork, images: Tensor) -> Tensor:
    """Mean weight of the R-MAC regions that cover each cell of the backbone's map.

    The images are seen as they are: of the network's `scales` only 1 is looked at. With pooling `rmac` every
    covered cell is 1; with `mac` every cell, as its one region is the whole map.

    Args:
        network: with its backbone, regions and, for `ra`, attention head.
        images: (N, 3, H, W) of one size, prepared as the backbone's entry says.

    Returns:
        (N, h, w) float32. A cell that no region covers is 0, for it has no part in the descriptor; only
        images more than seven times as long as wide have such cells.
    """
    features = network.backbone(images).float()
    height, width = features.shape[-2:]
    if network.pooling == "mac":
        return features.new_ones(len(features), height, width)
    grid = cell_grid(tuple(images.shape[-2:]), (height, width), network.levels, network.stride)
    weights = network.region_weights(features, grid)
    covers = (averaging_matrix(grid, features.device, features.dtype) > 0).to(features.dtype)
    regions = covers.sum(0).clamp(min=1)  # where there is none, their weights add up to 0 anyway
    return (weights @ covers / regions).unflatten(1, (height, width))
