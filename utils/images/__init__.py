"""Image files: listing, decoding, resizing, batches of one size."""
