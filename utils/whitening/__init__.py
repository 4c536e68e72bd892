"""Learning of the PCA whitening."""
