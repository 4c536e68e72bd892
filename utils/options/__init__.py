"""Options of the scripts."""
