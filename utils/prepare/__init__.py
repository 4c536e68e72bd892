"""Preparation of data sets: download, unpacking, layout and verification."""
