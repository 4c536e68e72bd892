"""Image files: listing, decoding, resizing and batches of one size."""
