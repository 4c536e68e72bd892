"""Files: paths, checked reading, writing under a temporary name, and locks."""
