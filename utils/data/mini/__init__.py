"""Mini: a small retrieval benchmark in the layout of Oxford5k that is drawn from a seed.

`facades` draws the front of a building from `facade_parts`, and `scenes` a photograph of it from a random
viewpoint. `benchmark` draws the full data set; its labels depend on the share of a landmark that is visible
in each image.
"""

from utils.data.mini.benchmark import MiniSettings, draw_benchmark, prepare_mini

__all__ = ["MiniSettings", "draw_benchmark", "prepare_mini"]
