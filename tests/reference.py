"""The method and its scores as plain loops that follow their definitions, for comparison with the code."""

import numpy as np


def region_cells(regions, map_size, stride=32):
    """Yield the rows and columns of a feature map that each region covers, including its last pixel.

    Args:
        regions: (R, 4) x, y, w, h in pixels.
        map_size: height and width of the map in cells.
        stride: pixels per cell.
    """
    height, width = map_size
    for x, y, w, h in regions:
        left, top, right, bottom = np.rint(np.array([x, y, x + w - 1, y + h - 1]) / stride).astype(int)
        yield slice(top, min(bottom, height - 1) + 1), slice(left, min(right, width - 1) + 1)


def pool_regions(features, regions, reduce, stride=32):
    """Return the pooled vector of each region, zeros for a region without a cell: (C, h, w) -> (R, C).

    Args:
        features: (C, h, w).
        regions: (R, 4) x, y, w, h in pixels.
        reduce: function of an array and its axes, such as np.max.
        stride: pixels per cell.
    """
    pooled = []
    for rows, columns in region_cells(regions, features.shape[1:], stride):
        cells = features[:, rows, columns]
        pooled.append(reduce(cells, axis=(1, 2)) if cells.size else np.zeros(len(features)))
    return np.stack(pooled)


def average_precision(ranking, positives, variable=float, literal=float):
    """Return the area under the precision-recall curve, summed image by image as in VGG's program.

    Args:
        ranking: image names without junk, the most similar first.
        positives: names of all images to find.
        variable: number type of the variables.
        literal: number type of the literals, and so of products with them.
    """
    old_recall, old_precision, area, hits = variable(0), variable(1), variable(0), 0
    for index, name in enumerate(ranking):
        hits += name in positives
        recall = variable(hits / len(positives))
        precision = variable(hits / (index + 1))
        height = literal(old_precision + precision) / literal(2)
        area = variable(literal(area) + literal(recall - old_recall) * height)
        old_recall, old_precision = recall, precision
    return area
