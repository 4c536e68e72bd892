"""Descriptors of images: extraction and the store on disk."""
