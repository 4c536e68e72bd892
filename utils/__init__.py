"""Data sets, files, search, scoring and command lines around the method."""
