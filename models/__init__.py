"""The method: backbones, R-MAC regions, region pooling, attention, whitening and the retrieval network."""
