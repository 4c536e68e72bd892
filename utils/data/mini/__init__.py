"""Mini: a small retrieval benchmark in Oxford's layout that the project draws itself, from a seed.

`facades` draws a building from the front, `scenes` a photograph of it from some viewpoint, and `benchmark`
the whole data set with its labels, which follow from how much of a landmark each image shows.
"""

from utils.data.mini.benchmark import MiniSettings, draw_benchmark, prepare_mini

__all__ = ["MiniSettings", "draw_benchmark", "prepare_mini"]
