"""Preparation of data sets: download, unpack, lay out, verify."""
