"""Published data sets: their numbers of images and queries, and their label files."""

QUERIES = 55

EXPECTED = {
    "Oxford": (5063, QUERIES),
    "Paris": (6392, QUERIES),
    "GoogleLandmarks": (761_757, 1129),
    "Holidays": (1491, 500),
}
"""Numbers of images and queries of a complete set, without the images that were published corrupt."""

REVISITED_FILES = {"ROxford": "gnd_roxford5k.pkl", "RParis": "gnd_rparis6k.pkl"}
"""Label file of each revisited set."""
