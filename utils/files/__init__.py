"""Files: paths, checked reading, writing that replaces a file only when it is complete, locks."""
