"""Indexing of a folder of images, and search in the index: the commands of Search_Images.py."""
