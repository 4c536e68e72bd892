"""Published data sets: the numbers of their images and queries, and the files of their labels."""

QUERIES = 55

EXPECTED = {"Oxford": (5063, QUERIES), "Paris": (6392, QUERIES)}
"""Images and queries of a complete set, the images published corrupt not counted."""

REVISITED_FILES = {"ROxford": "gnd_roxford5k.pkl", "RParis": "gnd_rparis6k.pkl"}
"""The file of a revisited set's labels."""
