"""Search: similarities, exact and approximate search, query expansion, augmentation, diffusion."""
