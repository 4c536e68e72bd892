"""Descriptors of images: extraction and storage on disk."""
